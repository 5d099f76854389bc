"""Names and sentences that prompts are made of: plain, short, without digits."""

from __future__ import annotations

import numpy as np

from regrow.core.errors import ConfigError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """
    Ada Alan Alma Amir Amy Ana Anna Ben Bill Bob Bruno Carl Cara Clara Dan Dana David Dora Ed
    Ella Emil Emma Eric Eva Finn Fiona Frank Fred Gina Greta Gus Hana Harry Helen Henry Hugo
    Ian Ida Igor Ines Ira Irene Ivan Jack Jane Jean Jill Jim Joan John Jose Judy Julia Karl
    Kate Ken Kim Kofi Lara Lena Leo Lily Lisa Lou Lucy Luis Luke Mara Mark Mary Max May Maya
    Mia Mike Milo Mina Nadia Nell Nick Nina Noah Nora Olga Oscar Otto Owen Pam Paul Pedro
    Peter Petra Pia Quinn Ralph Raul Ray Rita Rob Rosa Ruth Sam Sara Sean Simon Sofia Stan
    Steve Sue Tara Ted Tess Theo Tim Tina Tom Uma Una Vera Victor Wade Walt Wendy Will Yara
    Yuri Zack Zoe
    """
)
LAST_NAMES = _words(
    """
    Abbott Adams Allen Baker Barnes Bell Bennett Black Boone Bowen Brown Burke Burns Byrne
    Carter Castro Chan Chen Clark Cole Cook Cooper Cruz Dale Davis Day Dean Diaz Dixon Doyle
    Drake Duarte Dunn Ellis Evans Farr Fisher Flores Ford Foster Fox Garcia Gates Gibson Gomez
    Grant Gray Green Hale Hall Hart Hayes Hill Holt Hughes Hunt Iyer Jackson James Jensen
    Jones Kane Kaur Kelly Khan King Klein Knight Kumar Lane Larsen Lee Lewis Li Lind Lloyd
    Long Lopez Lynch Marsh Martin Mason Meyer Miller Mills Moore Morgan Moss Nash Nelson Nolan
    North Novak Olsen Ortiz Page Park Patel Perez Perry Pope Porter Price Ramos Reed Reyes
    Rice Rivera Roberts Ross Ryan Sato Schmidt Scott Shah Silva Singh Smith Stone Tan Taylor
    Torres Turner Vega Wade Wagner Walker Ward Weber Wells White Wolf Wood Wright Young
    """
)
CITIES = _words(
    """
    Accra Amman Athens Baku Bergen Berlin Bern Bogota Boston Cairo Cusco Dakar Delhi Denver
    Dublin Geneva Hanoi Havana Jakarta Kabul Kyoto Lagos Lima Lisbon London Lyon Madrid Malta
    Manila Milan Nairobi Naples Oslo Ottawa Paris Porto Prague Quito Riga Rome Seoul Sofia
    Tallinn Tokyo Tunis Turin Utrecht Venice Vienna Warsaw
    """
)
_ADJECTIVES = _words("old tall quiet green small busy warm grey narrow bright heavy plain")
_NOUNS = _words("miller gardener clock river ladder painter dog train baker bridge cart sailor")
_VERBS = _words("waits stands turns rests moves stops sings begins remains sleeps works shines")
_PLACES = _words("harbour square gate market orchard mill station garden church well hill wall")


def names(count: int, generator: np.random.Generator) -> list[str]:
    """Distinct names of a first and a last part, in random order; fewer are the first of more.

    Raises:
        ConfigError: there are not so many.
    """
    most = len(FIRST_NAMES) * len(LAST_NAMES)
    if count > most:
        raise ConfigError(
            f"{count} distinct names are needed, and there are {most}; lower lengths=[...]"
        )
    chosen = generator.permutation(most)[:count]
    return [
        f"{FIRST_NAMES[i // len(LAST_NAMES)]} {LAST_NAMES[i % len(LAST_NAMES)]}" for i in chosen
    ]


def sentences(count: int, generator: np.random.Generator) -> list[str]:
    """Sentences that say nothing of importance; they repeat in the long run."""
    parts = generator.integers(12, size=(count, 4))
    return [
        f"The {_ADJECTIVES[a]} {_NOUNS[b]} {_VERBS[c]} by the {_PLACES[d]}." for a, b, c, d in parts
    ]


def numbers(count: int, digits: int, generator: np.random.Generator) -> list[str]:
    """Distinct numbers of ``digits`` digits, leading zeros kept; fewer are the first of more.

    Raises:
        ConfigError: there are not so many.
    """
    most = 10**digits
    if count > most:
        raise ConfigError(
            f"{count} distinct numbers of {digits} digits are needed, and there are {most}; "
            "lower lengths=[...]"
        )
    if most <= 1 << 16:
        chosen = generator.permutation(most)[:count].tolist()
    else:
        seen: dict[int, None] = {}
        while len(seen) < count:
            seen[int(generator.integers(most))] = None
        chosen = list(seen)
    return [f"{number:0{digits}d}" for number in chosen]
