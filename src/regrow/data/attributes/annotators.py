"""Who labels documents: a chat endpoint, or a local model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from regrow.core.errors import InputError
from regrow.data.attributes import CLASSIFIER, match_labels, open_classifier, resolve_classifier
from regrow.data.attributes.kinds import Attribute
from regrow.data.attributes.prompt import Prompt
from regrow.data.settings.attributes import ClassifierConfig
from regrow.io.endpoint import Endpoint
from regrow.io.hf import read_config


class Annotator(Protocol):
    """What labels one document at a time."""

    by: str
    """Who it is, as ``labels.jsonl`` says."""
    concurrency: int
    """Documents that it can label at once, from as many threads."""

    def label(self, text: str) -> str:
        """The class of a document.

        Raises:
            ReplyError: none that fits, for this document.
            RunError: something that other documents would meet too.
        """
        ...

    def stop(self) -> None:
        """Label nothing more: who waits gives up."""
        ...


class EndpointAnnotator:
    """A chat model behind an endpoint, at temperature 0.

    Args:
        endpoint: open.
        prompt: what it is asked.
    """

    def __init__(self, endpoint: Endpoint, prompt: Prompt) -> None:
        self.endpoint, self.prompt = endpoint, prompt
        self.by = f"endpoint {endpoint.config.model}"
        self.concurrency = endpoint.config.concurrency
        self._schema: Any = prompt.reply_schema()

    def label(self, text: str) -> str:
        """The class that the model writes."""
        reply = self.endpoint.ask(self.prompt.messages(text), self._schema)
        label: str = reply.label
        return label

    def stop(self) -> None:
        """Send nothing more."""
        self.endpoint.stop()


class ClassifierAnnotator:
    """A classifier's likeliest class.

    Args:
        given: the classifier, and what its labels are called here.
        attribute: that is labelled.

    Raises:
        InputError: no such classifier, or one of other classes.
        ConfigError: a library or a device that is missing.
    """

    concurrency = 1

    def __init__(self, given: ClassifierConfig, attribute: Attribute) -> None:
        self._classifier = open_classifier(given.path, given.device)
        self.by = self._classifier.id
        own = list(self._classifier.labels)
        where = f"model: {given.path}"
        self.labels = match_labels(own, attribute.classes, given.labels, where)

    def label(self, text: str) -> str:
        """The likeliest class."""
        return self.labels[int(self._classifier.probabilities([text])[0].argmax())]

    def stop(self) -> None:
        """Nothing ever waits."""


class RankingAnnotator:
    """The class whose name a causal language model ranks first.

    Args:
        given: the model's folder or run.
        prompt: what it is asked.

    Raises:
        InputError: no such model.
        ConfigError: a library or a device that is missing.
    """

    concurrency = 1

    def __init__(self, given: ClassifierConfig, prompt: Prompt) -> None:
        from regrow.data.attributes.ranker import Ranker

        self._ranker = Ranker(resolve_classifier(given.path), given.device)
        self._prompt = prompt
        self.by = self._ranker.id

    def label(self, text: str) -> str:
        """The class of the name that the document raises most."""
        return self._prompt.classes[int(self._ranker.probabilities(text, self._prompt).argmax())]

    def stop(self) -> None:
        """Nothing ever waits."""


def is_language_model(path: Path) -> bool:
    """Whether the model in a folder or run continues text, rather than choosing a class.

    Raises:
        InputError: no model there, or one that does neither.
    """
    folder = resolve_classifier(path)
    if (folder / CLASSIFIER).is_file():
        return False
    named = read_config(folder).get("architectures") or []
    if any(str(name).endswith("ForSequenceClassification") for name in named):
        return False
    if any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in named):
        return True
    raise InputError(
        f"{folder}/config.json: architectures {named}; a model that labels is a sequence "
        "classifier (...ForSequenceClassification) or a language model (...ForCausalLM)"
    )
