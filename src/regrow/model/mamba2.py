"""The Mamba-2 block: training, prefill, chunked prefill and single steps with the same numerics.

Projections keep Hugging Face's names and order of rows (gate, x, B, C, time steps); what the
recurrence needs in full precision lies in one small submodule of its own.

Source: Transformers are SSMs (arXiv 2405.21060); groups, group norm and initial values as in
Mamba-2-Hybrid (arXiv 2406.07887).
Legend: B batch, T time, D model, H heads, P head channels, G groups, N state channels, I = H P,
C = I + 2 G N convolved channels, K taps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.model.blocks import SequenceContext, initialise_linear, linear
from regrow.model.config import ModelConfig
from regrow.model.conv import causal_conv
from regrow.model.gated_norm import GatedNorm
from regrow.model.ssd import Heads, scan


@dataclass(slots=True)
class MambaState:
    """What one block remembers of B sequences; its size does not depend on their length.

    Attributes:
        window: (B, K - 1, C) the last inputs of the convolution.
        state: (B, G, N, H P / G) in fp32: updates of under a thousandth would be lost in bf16.
    """

    window: Tensor
    state: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.window.nbytes + self.state.nbytes

    def shift(self, seen: Tensor) -> None:
        """Keep the last inputs of ``seen``, (B, K - 1 + T, C), which begins with the old window."""
        self.window.copy_(seen[:, seen.shape[1] - self.window.shape[1] :])


class Dynamics(nn.Module):
    """Decay rates, time-step biases and skip weights of the heads, (H,) each; never below fp32."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.zeros(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.dt_bias = nn.Parameter(torch.zeros(heads))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Dynamics:
        """Follow a move to another device, or to a wider dtype, but not to a narrower one."""

        def wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.is_floating_point() and moved.dtype.itemsize < 4:
                return tensor.to(moved.device, torch.float32)
            return moved

        return cast(Dynamics, super()._apply(wide, recurse))  # type: ignore[no-untyped-call]


class Mamba2(nn.Module):
    """H heads with a state of P x N each; head h reads B and C of group ``h // (H / G)``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.mamba is None:
            raise ValueError("the config has no mamba settings, so no pattern with M")
        self.sizes = sizes = config.mamba
        self.heads = Heads(sizes.heads, sizes.head_dim, sizes.groups, sizes.state)
        self.in_proj = linear(config.hidden_size, sizes.projection, sizes.proj_bias)
        # Only its parameters are used; as a module they keep the names of every checkpoint.
        conv = nn.Conv1d(
            sizes.conv_channels,
            sizes.conv_channels,
            sizes.conv,
            groups=sizes.conv_channels,
            bias=sizes.conv_bias,
            device="meta",
        )
        device = torch.get_default_device()
        self.conv1d = conv if device.type == "meta" else conv.to_empty(device=device)
        if device.type != "meta":
            for parameter in self.conv1d.parameters():
                nn.init.zeros_(parameter)
        self.dynamics = Dynamics(sizes.heads)
        self.norm = GatedNorm(sizes.inner, sizes.groups, config.norm_eps)
        self.out_proj = linear(sizes.inner, config.hidden_size, sizes.proj_bias)

    def new_state(
        self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> MambaState:
        """An empty state for ``batch`` sequences of any length."""
        window = (batch, self.sizes.conv - 1, self.sizes.conv_channels)
        return MambaState(
            torch.zeros(window, device=device, dtype=dtype),
            torch.zeros(
                self.heads.state_shape(batch),
                device=device,
                dtype=torch.promote_types(dtype, torch.float32),
            ),
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, std: float, residual_std: float) -> None:
        """Fresh weights; ``residual_std`` is for the projection that writes to the residual.

        Decay rates are uniform in [a_min, a_max], time steps log-uniform in [dt_min, dt_max] (their
        bias is the inverse softplus), skips one; the convolution is uniform in
        +-1/sqrt(K), as torch's own.
        """
        sizes, dynamics = self.sizes, self.dynamics

        def uniform(like: Tensor, low: float, high: float) -> Tensor:
            drawn = torch.empty(like.shape, device=generator.device)
            return drawn.uniform_(low, high, generator=generator).to(like.device)

        initialise_linear(self.in_proj, std, generator)
        bound = 1 / math.sqrt(sizes.conv)
        for parameter in self.conv1d.parameters():
            parameter.copy_(uniform(parameter, -bound, bound))
        dynamics.A_log.copy_(uniform(dynamics.A_log, sizes.a_min, sizes.a_max).log())
        low, high = math.log(sizes.dt_min), math.log(sizes.dt_max)
        steps = uniform(dynamics.dt_bias, low, high).exp().clamp_(min=sizes.dt_floor)
        dynamics.dt_bias.copy_(steps + (-torch.expm1(-steps)).log())
        dynamics.D.fill_(1.0)
        self.norm.reset_parameters()
        initialise_linear(self.out_proj, residual_std, generator)

    def forward(
        self, x: Tensor, context: SequenceContext, state: MambaState | None = None
    ) -> Tensor:
        """(B, T, D) to (B, T, D); with a state, the T tokens follow those that it has seen."""
        sizes = self.sizes
        gate, mixed, steps = torch.split(
            self.in_proj(x), [sizes.inner, sizes.conv_channels, sizes.heads], -1
        )
        dynamics = self.dynamics
        wide = torch.promote_types(steps.dtype, torch.float32)
        dt = F.softplus(steps.to(wide) + dynamics.dt_bias.to(wide))
        if sizes.dt_low or sizes.dt_high is not None:
            dt = dt.clamp(sizes.dt_low, sizes.dt_high)
        rates = -dynamics.A_log.to(wide).exp()
        if state is not None and x.shape[1] == 1 and context.valid is None:
            y = self._step(mixed[:, 0], dt[:, 0], rates, state)
        else:
            y = self._rows(mixed, dt, rates, context, state)
        return cast(Tensor, self.out_proj(self.norm(y, gate)))

    def _rows(
        self,
        mixed: Tensor,
        dt: Tensor,
        rates: Tensor,
        context: SequenceContext,
        state: MambaState | None,
    ) -> Tensor:
        """(B, T, C) and (B, T, H) to (B, T, I), by chunks."""
        weight, bias = self.conv1d.weight[:, 0], self.conv1d.bias
        window = state.window if state is not None else None
        valid = context.valid
        if valid is None:
            convolved = causal_conv(mixed, weight, bias, window, context.positions)
            if state is not None:
                state.shift(torch.cat([state.window, mixed[:, -self.sizes.conv :]], 1))
        else:
            # Tokens are moved together so that no tap sees padding, and back to their places.
            order = (~valid).to(torch.int8).argsort(dim=1, stable=True)[..., None]
            packed = mixed.gather(1, order.expand_as(mixed))
            convolved = causal_conv(packed, weight, bias, window)
            convolved = torch.zeros_like(convolved).scatter(1, order.expand_as(mixed), convolved)
            dt = dt * valid[..., None]
            if state is not None:
                seen = torch.cat([state.window, packed], 1)
                places = torch.arange(self.sizes.conv - 1, device=valid.device)
                last = valid.sum(1)[:, None] + places
                state.window.copy_(seen.gather(1, last[..., None].expand_as(state.window)))
        y, final = scan(
            convolved,
            dt,
            rates,
            self.dynamics.D.to(dt.dtype),
            self.heads,
            self.sizes.chunk,
            state.state if state is not None else None,
            context.documents,
        )
        if state is not None:
            state.state.copy_(final)
        return y

    def _step(self, mixed: Tensor, dt: Tensor, rates: Tensor, state: MambaState) -> Tensor:
        """One token: (B, C) and (B, H) to (B, 1, I), changing the state in place."""
        heads, weight = self.heads, self.conv1d.weight[:, 0]
        wide = dt.dtype
        seen = torch.cat([state.window, mixed[:, None].to(state.window.dtype)], 1)
        state.shift(seen)
        convolved = (seen.to(wide) * weight.to(wide).t()).sum(1)
        if self.conv1d.bias is not None:
            convolved = convolved + self.conv1d.bias.to(wide)
        x, b, c = torch.split(F.silu(convolved), [heads.inner, heads.shared, heads.shared], -1)
        batch = x.shape[0]
        grouped = (batch, heads.groups, 1, heads.wide)
        per_head = x.view(batch, heads.heads, heads.head_dim)
        fed = (per_head * dt[..., None]).view(grouped)
        decay = (dt * rates).exp().repeat_interleave(heads.head_dim, -1).view(grouped)
        b, c = (part.view(batch, heads.groups, heads.state, 1) for part in (b, c))
        state.state.mul_(decay).addcmul_(b, fed)
        y = torch.matmul(c.transpose(2, 3), state.state).view(batch, heads.heads, heads.head_dim)
        y = torch.addcmul(y, per_head, self.dynamics.D.to(wide)[:, None])
        return y.view(batch, 1, heads.inner)
