"""Our decoders as a model of EleutherAI's lm-eval, so that its tasks can be run on them.

``lm_eval.simple_evaluate(model=RegrowLM.load(FOLDER), tasks=[...])``; importing this module also
registers the model as ``regrow``, with ``model_args`` ``pretrained=FOLDER``. lm-eval is the extra
``[eval]``; nothing else here needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.core.engines import prepare_engines
from regrow.core.errors import ConfigError
from regrow.eval.lm import LanguageModel

prepare_engines()
try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise ConfigError(f"lm-eval is not installed ({error}); pip install 'regrow[eval]'") from error

_MAX_NEW_TOKENS = 256  # where a task names no limit, as in lm-eval
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@register_model("regrow")
class RegrowLM(LM):  # type: ignore[misc]
    """A language model as lm-eval asks it: log-likelihoods, whole texts, greedy continuations.

    Args:
        pretrained: a Hugging Face folder or a finished run, or a model that is loaded.
        batch_size: rows that lm-eval suggests; batches are by tokens here, so it is not used.
        device: where to, as torch names it; a GPU where there is one by default.
        max_batch_size: not used.
    """

    def __init__(
        self,
        pretrained: str | Path | LanguageModel,
        batch_size: int | str | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.inner = (
            pretrained if isinstance(pretrained, LanguageModel) else _load(Path(pretrained), device)
        )

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> RegrowLM:
        """A model of a folder or a finished run.

        Raises:
            InputError: no model there, or none with a tokenizer.
        """
        return cls(folder, device=device)

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in lm-eval's caches: its hash."""
        return self.inner.tokenizer.sha256

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Sum in nats and whether greedy, of each ``(context, continuation)``."""
        scores = self.inner.log_likelihood([request.args for request in requests])
        found = [(score.log_likelihood, score.greedy) for score in scores]
        self._keep("loglikelihood", requests, found)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Sum in nats of each whole text."""
        scores = self.inner.passages([request.args[0] for request in requests])
        found = [score.log_likelihood for score in scores]
        self._keep("loglikelihood_rolling", requests, found)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy text after each context, up to the first stop.

        Raises:
            ConfigError: a task that asks for sampling.
        """
        alike: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(_limits(request.args[1]), []).append(index)
        texts = [""] * len(requests)
        for (new, stop), places in alike.items():
            prompts = [requests[index].args[0] for index in places]
            made = self.inner.generate(prompts, new, stop, keep_prompt=False)
            for index, text in zip(places, made, strict=True):
                texts[index] = text
        self._keep("generate_until", requests, texts)
        return texts

    def _keep(self, kind: str, requests: Sequence[Any], found: Iterable[Any]) -> None:
        """Hand answers to lm-eval's cache, where one is used."""
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)


def _load(path: Path, device: str | None) -> LanguageModel:
    import torch

    from regrow.io.runs import resolve_model
    from regrow.io.tokenizer import Tokenizer
    from regrow.model.folder import load
    from regrow.train.device import resolve_device

    folder = resolve_model(path)
    place = torch.device(device) if device else resolve_device("auto")
    return LanguageModel(load(folder).to(place), Tokenizer.load(folder))


def _limits(settings: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """New tokens and stops of lm-eval's generation settings."""
    if settings.get("do_sample") or settings.get("temperature"):
        raise ConfigError("lm-eval asks for sampling; this model is asked greedily only")
    until = settings.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    wanted = next((settings[name] for name in _LENGTHS if settings.get(name)), _MAX_NEW_TOKENS)
    return int(wanted), stops
