"""The four attributes: their classes, what each class means, and the columns that hold them.

The definitions are what an annotator reads; a prompt file may give others.
Source: Data, Data Everywhere (arXiv 2407.06380): the classes of quality, domain and type of
speech. The bins of toxicity are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regrow.core.errors import ConfigError
from regrow.core.registry import nearest

TOXICITY_BINS = (0.3, 0.6)
"""Bounds between low, medium and high."""
TOXICITY_BIN_NAMES = ("low", "medium", "high")
TOXIC_AT = 0.5

QUALITY = {
    "High": "accurate, clear, coherent, grammatical and of some depth: a reader learns from it",
    "Medium": "readable and mostly correct, but shallow, partial, repetitive or carelessly made",
    "Low": "hard to read or of no use: spam, menus, fragments, machine-made filler, broken markup",
}
DOMAIN = {
    "Adult": "sexual content and services for adults",
    "Arts_and_Entertainment": "film, television, music, theatre, visual arts, celebrities, humour",
    "Autos_and_Vehicles": "cars, motorcycles, boats, aircraft, their parts, repair and sale",
    "Beauty_and_Fitness": "cosmetics, hair, fashion of the body, weight, exercise",
    "Books_and_Literature": "fiction, poetry, essays, texts of books and writing about them",
    "Business_and_Industrial": "companies, trade, manufacturing, logistics, farming, marketing",
    "Computers_and_Electronics": "software, programming, hardware, devices, their manuals",
    "Finance": "banking, credit, insurance, investing, taxes, accounting",
    "Food_and_Drink": "recipes, cooking, restaurants, beverages",
    "Games": "video games, board games, cards, puzzles, gambling",
    "Health": "diseases, medicine, nutrition, mental health, care",
    "Hobbies_and_Leisure": "crafts, collecting, outdoor pastimes, celebrations",
    "Home_and_Garden": "houses, furniture, appliances, gardening, repairs at home",
    "Internet_and_Telecom": "web services, hosting, mobile phones and networks, their providers",
    "Jobs_and_Education": "schools, universities, courses, vacancies, careers",
    "Law_and_Government": "statutes, courts, police, public bodies, armies, politics of state",
    "News": "reports of current events of no narrower domain",
    "Online_Communities": "forums, social networks, dating, personal pages",
    "People_and_Society": "religion, family, relations, social issues, ethnic groups, history",
    "Pets_and_Animals": "pets, wildlife, animal care",
    "Real_Estate": "property for sale or rent, agents, land",
    "Science": "physics, chemistry, biology, mathematics, earth, engineering, research",
    "Sensitive_Subjects": "accidents, violence, death, drugs, war",
    "Shopping": "products for sale, prices, coupons, clothes, gifts",
    "Sports": "teams, matches, athletes, sports equipment",
    "Travel_and_Transportation": "destinations, hotels, flights, public transport, maps",
}
SPEECH = {
    "Product/Company/Organization/Personal Websites": "presents a product, firm, body or person",
    "Explanatory Articles": "explains how something is or works: encyclopaedia, manual, tutorial",
    "News": "reports recent events",
    "Blogs": "an author's own posts, dated, informal",
    "MISC": "fits none of the others",
    "Boilerplate Content": "menus, notices, terms of use, licences, generated listings",
    "Analytical Exposition": "argues or analyses: essays, research, opinion at length, speeches",
    "Online Comments": "replies of readers to something else",
    "Reviews": "judges a product, work or place",
    "Books and Literature": "fiction, drama, poetry, chapters of books",
    "Conversational": "turns of two or more speakers: chats, interviews, questions with answers",
}
TOXICITY = {
    "not toxic": "nothing that attacks or demeans",
    "toxic": "insults, threatens, demeans or attacks a person or group, or is obscene to hurt",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One property of documents.

    Args:
        name: of its column and its setting.
        definitions: class to meaning; empty for an attribute that only its classifier defines.
        question: what an annotator is asked.
        positive: the class whose probability is the attribute itself; empty where it is a label.
    """

    name: str
    definitions: Mapping[str, str]
    question: str
    positive: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Its classes in their order."""
        return tuple(self.definitions)


ATTRIBUTES: dict[str, Attribute] = {
    found.name: found
    for found in (
        Attribute("quality", QUALITY, "How good is the document's text?"),
        Attribute("domain", DOMAIN, "What is the document about?"),
        Attribute("speech", SPEECH, "What type of speech is the document?"),
        Attribute("toxicity", TOXICITY, "Is the document toxic?", positive="toxic"),
    )
}

_NAME = re.compile(r"^[a-z][a-z0-9_]*$")


def get_attribute(name: str) -> Attribute:
    """The attribute called ``name``; one of your own has the classes of its classifier.

    Raises:
        ConfigError: a name that can be no column, or one that almost is a known attribute's.
    """
    if name in ATTRIBUTES:
        return ATTRIBUTES[name]
    known = ", ".join(ATTRIBUTES)
    if not _NAME.match(name):
        raise ConfigError(
            f"attribute {name!r}: a name is lower-case letters, digits and _ (known: {known})"
        )
    hint = nearest(name, list(ATTRIBUTES))
    if hint:
        raise ConfigError(f"unknown attribute {name!r}{hint} (known: {known}; others are yours)")
    return Attribute(name, {}, f"What is the document's {name.replace('_', ' ')}?")


def slug(label: str) -> str:
    """A label as part of a column's name."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def probability_column(attribute: str, label: str) -> str:
    """Name of the column with the probability of one class."""
    return f"{attribute}_probability_{slug(label)}"


def attribute_columns(attribute: Attribute, labels: Sequence[str]) -> list[str]:
    """Columns that an attribute adds to the documents, in their order.

    A label's: the label, each class's probability, the classifier's id. Toxicity's: the
    probability, the label at 0.5, the bin, the classifier's id.
    """
    name = attribute.name
    if attribute.positive:
        return [name, f"{name}_label", f"{name}_bin", f"{name}_classifier"]
    return [name, *(probability_column(name, label) for label in labels), f"{name}_classifier"]
