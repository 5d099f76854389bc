"""What each process of a world does in the tests: compare shares with the whole, then train.

Started by torchrun: ``world_worker.py TENSOR WORDS...``, words of ``regrow`` without the world.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import torch

from regrow.cli.main import main
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
from regrow.train.held_out import held_out
from regrow.train.parallel import distribute, whole_model
from regrow.train.world import World, start_world

HYBRID: dict[str, Any] = {
    "pattern": "*-M*-M",
    "layers": 6,
    "qk_norm": True,
    "qkv_bias": True,
    "output_bias": True,
    "mlp_bias": True,
    "mamba": MambaConfig(state=6, head_dim=4, heads=8, groups=4, chunk=8, proj_bias=True),
}


def check_shares(world: World, **settings: Any) -> None:
    """Loss, gradients, norm and state of a sharded decoder are those of a whole one."""
    config = ModelConfig(
        hidden_size=24, heads=8, kv_heads=4, head_dim=6, vocab_size=50, intermediate_size=40,
        init_std=0.3, **settings,
    )  # fmt: skip

    def make() -> Decoder:
        model = Decoder(config)
        model.initialise(torch.Generator().manual_seed(0))
        return model

    whole, shared = make(), make()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    sharding = distribute(shared, world, torch.device("cpu"))
    ids = torch.randint(50, (4, 17), generator=torch.Generator().manual_seed(1))
    loss, _ = whole.head.cross_entropy(whole.hidden(ids), ids)
    loss.backward()
    total = 0.0
    for row in ids[world.data_rank :: world.data].split(1):
        part, _ = shared.head.cross_entropy(shared.hidden(row), row)
        part.backward()
        total += part.item()
    assert abs(world.sum([total])[0] - loss.item()) < 1e-4 * loss.item()
    grads = {name: p.grad for name, p in shared.named_parameters() if p.grad is not None}
    norm = torch.nn.utils.get_total_norm([p.grad for p in whole.parameters() if p.grad is not None])
    assert abs(sharding.squared_norm(grads) ** 0.5 / norm.item() - 1) < 1e-5
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None
        got = sharding.whole(name, grads[name])
        scale = parameter.grad.abs().max().clamp(min=1e-2)
        assert (got - parameter.grad).abs().max() < 1e-4 * scale, name
    gathered = dict(sharding.gathered(shared.state_dict()))
    assert list(gathered) == list(before)
    assert all(torch.equal(gathered[name], before[name]) for name in before)
    torch.optim.AdamW(shared.parameters(), lr=1e-2, fused=True).step()
    sharding.load(shared, before)
    made = whole_model(shared, sharding, config)
    assert (made is not None) == world.is_first
    if made is not None:
        assert all(torch.equal(t, before[name]) for name, t in made.state_dict().items())


class Rows(NamedTuple):
    """A batch of held-out windows."""

    tokens: torch.Tensor
    targets: torch.Tensor
    documents: torch.Tensor | None = None


def check_held_out(world: World) -> None:
    """Windows divided over the data processes score as all in one; the batches do not divide."""
    config = ModelConfig(
        layers=2, hidden_size=24, heads=4, kv_heads=2, vocab_size=50, intermediate_size=40,
        init_std=0.3,
    )  # fmt: skip
    whole, shared = Decoder(config), Decoder(config)
    for model in (whole, shared):
        model.initialise(torch.Generator().manual_seed(0))
    calls = []
    inner = shared.head.cross_entropy
    shared.head.cross_entropy = lambda *a: (calls.append(a), inner(*a))[1]  # type: ignore
    distribute(shared, world, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    table = torch.randint(50, (13, 2, 17), generator=generator)
    targets = table[..., 1:].clone()
    targets[:, 0, :5] = -100
    rows = [Rows(t[:, :-1], y) for t, y in zip(table, targets, strict=True)]
    shards = {"a": rows[:3], "b": rows[3:12], "c": rows[12:]}
    token_bytes = np.arange(50, dtype=np.int32)

    def batches(shard: list[Rows], *_: int) -> list[Rows]:
        return shard

    expected = held_out(whole, shards, token_bytes, 16, 2, 10**6, batches)
    found = held_out(shared, shards, token_bytes, 16, 2, 10**6, batches, world)
    assert found["tokens"] == expected["tokens"] == 13 * (2 * 16 - 5)
    assert abs(found["loss"] / expected["loss"] - 1) < 1e-6
    for kind in ("losses", "bits_per_byte"):
        assert found[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            assert abs(found[kind][name] / value - 1) < 1e-6, (kind, name)
    assert len(calls) == sum(-(-count // world.data) for count in (3, 9, 1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensor = int(sys.argv[1])
    world = start_world(tensor, torch.device("cpu"))
    check_shares(world, **HYBRID)
    check_shares(world, layers=2, tie_embeddings=True)
    check_held_out(world)
    main([*sys.argv[2:], f"parallel.tp={tensor}"])
