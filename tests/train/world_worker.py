"""What each process of a world does in the tests: compare shares with the whole, then train.

Started by torchrun: ``world_worker.py TENSOR WORDS...``, words of ``regrow`` without the world.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from regrow.cli.main import main
from regrow.model.config import MambaConfig, ModelConfig
from regrow.model.decoder import Decoder
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensor = int(sys.argv[1])
    world = start_world(tensor, torch.device("cpu"))
    check_shares(world, **HYBRID)
    check_shares(world, layers=2, tie_embeddings=True)
    main([*sys.argv[2:], f"parallel.tp={tensor}"])
