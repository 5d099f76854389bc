"""What makes a page of the web worse than its text: furniture, small edits, link farms."""

from __future__ import annotations

import html
from collections.abc import Sequence
from random import Random

_MENU = (
    "Home", "About us", "Contact", "Sign in", "Register", "Help", "Search", "News", "Archive",
    "Gallery", "Shop", "Cart", "Blog", "Forum", "Events", "Support", "Careers", "Press", "Partners",
    "Downloads", "Newsletter", "Sitemap", "Privacy policy", "Terms of use", "Accessibility",
    "Advertise", "My account", "Wish list", "Site credits", "Feedback", "FAQ", "Categories",
    "Popular", "Random page", "Recent changes", "Print this page", "Share on social media",
)  # fmt: skip
_NOTICES = (
    "This site uses cookies to improve your experience. By continuing you accept their use.",
    "Subscribe to our newsletter and never miss an update.",
    "Please enable JavaScript to view the comments.",
    "You are viewing a cached copy of this page.",
    "Log in to leave a comment or to follow this discussion.",
    "This page was last updated automatically.",
)
_SELL = (
    "Best {0} {1} online, cheap {0} for sale.",
    "Buy {0} {1} today and save on {2}.",
    "Compare {0} prices: {1}, {2} and more {0} deals.",
    "Free {2} with every {0} {1}, order now.",
    "Top 10 {0} sites for {1} and {2}.",
    "Looking for {0}? Find {1} {2} near you.",
    "{0} {1} {2} reviews, {0} coupons, discount {1}.",
)


class Site:
    """The furniture of one site: it is the same on all of its pages but for the related links.

    Args:
        name: of the site.
        random: that its labels are drawn from.
    """

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.menu = random.sample(_MENU, random.randint(8, 18))
        self.foot = random.sample(_MENU, random.randint(4, 10))
        self.notices = random.sample(_NOTICES, random.randint(1, 3))
        self.year = random.randint(2005, 2024)

    def page(self, title: str, body: Sequence[str], related: Sequence[str]) -> str:
        """A page of HTML with the text in its main part.

        Args:
            title: of the page.
            body: its paragraphs.
            related: titles of other pages that it links to.
        """
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>'
            f"{html.escape(title)} - {self.name}</title></head>\n<body>\n"
            f'<header class="site-header"><a href="/">{self.name}</a>'
            f'<nav class="menu"><ul>{_links(self.menu)}</ul></nav></header>\n'
            f"<main><article><h1>{html.escape(title)}</h1>\n{_paragraphs(body)}</article></main>\n"
            f'<aside class="sidebar related"><h3>Related pages</h3><ul>{_links(related)}</ul>'
            f"</aside>\n"
            f'<footer class="site-footer"><ul>{_links(self.foot)}</ul>'
            + "".join(f"<p>{html.escape(notice)}</p>" for notice in self.notices)
            + f"<p>Copyright {self.year} {self.name}. All rights reserved.</p></footer>\n"
            f"</body></html>\n"
        )


def _links(labels: Sequence[str]) -> str:
    return "".join(f'<li><a href="/{i}.html">{html.escape(t)}</a></li>\n' for i, t in
                   enumerate(labels))  # fmt: skip


def _paragraphs(body: Sequence[str]) -> str:
    return "".join(
        f"<pre>{html.escape(part)}</pre>\n" if "\n" in part else f"<p>{html.escape(part)}</p>\n"
        for part in body
    )


def edited(body: Sequence[str], share: float, random: Random) -> tuple[str, ...]:
    """The paragraphs with a share of their words replaced by others of them, lost or doubled."""
    pool = [word for part in body for word in part.split(" ") if word]
    made = []
    for part in body:
        words = []
        for word in part.split(" "):
            if word and random.random() < share:
                words += random.choice(([random.choice(pool)], [], [word, word]))
            else:
                words.append(word)
        made.append(" ".join(words))
    return tuple(part for part in made if part)


def family_size(random: Random, exponent: float, cap: int) -> int:
    """Pages of a near-duplicate family: Pareto from 1, cut at ``cap``."""
    return min(cap, int(random.paretovariate(exponent)))


def farm(random: Random, words: Sequence[str], titles: Sequence[str],
         sentences: Sequence[str]) -> tuple[str, ...]:  # fmt: skip
    """The paragraphs of one link-farm page, of three kinds in turn by chance.

    Args:
        random: that it is drawn from.
        words: keywords.
        titles: of other pages, for lists of links.
        sentences: of other pages, for pages that look like text at a glance.
    """
    kind = random.choice(("links", "keywords", "doorway"))
    keys = random.sample(words, 12)
    sell = [random.choice(_SELL).format(*random.sample(keys, 3)) for _ in range(40)]
    if kind == "links":
        return tuple(
            random.choice((random.choice(titles), " ".join(random.sample(keys, 3))))
            for _ in range(random.randint(40, 160))
        )
    if kind == "keywords":
        return tuple(" ".join(sell[i : i + 5]) for i in range(0, random.randint(20, 40), 5))
    parts = []
    for _ in range(random.randint(4, 9)):
        mixed = random.sample(sentences, 5) + random.sample(sell, 2)
        random.shuffle(mixed)
        parts.append(" ".join(mixed))
    return tuple(parts)
