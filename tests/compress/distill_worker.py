"""What each process of a world does in the tests: a shared student against a whole one, then a run.

Started by torchrun: ``distill_worker.py TENSOR WORDS...``, words of ``regrow`` without the world.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from regrow.cli.main import main
from regrow.model.decoder import Decoder
from regrow.train.objectives.distillation import Distillation
from regrow.train.objectives.hidden_match import MAP, HiddenMatch, add_map
from regrow.train.parallel import distribute, whole_model
from regrow.train.world import World, start_world
from tests.compress.makers import small
from tests.train.fakes import Tokens

OPTIONS: dict[str, Any] = {"divergence": "jsd", "top_k": 9, "ce_weight": 0.4}


def check_shares(world: World, recompute: bool) -> None:
    """Loss, gradients and state of a sharded student are those of a whole one."""

    def make(**settings: Any) -> Decoder:
        model = Decoder(small(init_std=0.3, **settings))
        model.initialise(torch.Generator().manual_seed(0))
        return model

    teacher, whole, shared = make(), make(layers=2), make(layers=2)
    match = HiddenMatch(((0, 1), (1, 3)))
    for student in (whole, shared):
        add_map(student, teacher.config.hidden_size, seed=1)
        for block in student.blocks:
            block.recompute = recompute
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    sharding = distribute(shared, world, torch.device("cpu"))
    ids = torch.randint(61, (4, 17), generator=torch.Generator().manual_seed(1))
    targets = ids.roll(-1, 1)
    targets[:, -3:] = -100
    expected = Distillation(whole, teacher, hidden=match, **OPTIONS).loss(Tokens(ids, targets))
    expected.sum.backward()
    objective = Distillation(shared, teacher, hidden=match, **OPTIONS)
    total = 0.0
    for row in range(world.data_rank, 4, world.data):
        part = objective.loss(Tokens(ids[row : row + 1], targets[row : row + 1]))
        part.sum.backward()
        total += part.sum.item()
    assert abs(world.sum([total])[0] / expected.sum.item() - 1) < 1e-5
    grads = {name: p.grad for name, p in shared.named_parameters() if p.grad is not None}
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None, name
        got = sharding.whole(name, grads[name])
        scale = parameter.grad.abs().max().clamp(min=1e-2)
        assert (got - parameter.grad).abs().max() < 1e-4 * scale, name
    gathered = dict(sharding.gathered(shared.state_dict()))
    assert all(torch.equal(gathered[name], before[name]) for name in before)
    made = whole_model(shared, sharding, whole.config)
    assert made is None or not hasattr(made, MAP)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensor = int(sys.argv[1])
    world = start_world(tensor, torch.device("cpu"))
    check_shares(world, recompute=False)
    check_shares(world, recompute=True)
    main([*sys.argv[2:], f"parallel.tp={tensor}"])
