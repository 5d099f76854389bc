"""Words and phrases by language, for rules that cannot be told without knowing the language.

``words``: some of the commonest words, mostly articles, prepositions and conjunctions; running text
of the language holds several of them, a list of names or of goods does not. ``phrases``: what pages
say about themselves and not about their subject, in lower case.
"""
# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import dataclass

# Written without blanks between words: what counts words says nothing there.
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo", "dz", "yue", "wuu"})


@dataclass(frozen=True, slots=True)
class WordList:
    """What is known of a language.

    Args:
        words: lower case, without blanks.
        phrases: lower case.
    """

    words: tuple[str, ...]
    phrases: tuple[str, ...]


def _list(words: str, *phrases: str) -> WordList:
    return WordList(tuple(words.split()), phrases)


WORD_LISTS: dict[str, WordList] = {
    "en": _list(
        "the be to of and that have with",
        "terms of use",
        "terms of service",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use cookies",
        "use of cookies",
        "lorem ipsum",
        "all rights reserved",
        "enable javascript",
    ),
    "de": _list(
        "der die das und in zu den nicht von mit ist ein eine",
        "nutzungsbedingungen",
        "datenschutzerklärung",
        "datenschutzhinweise",
        "verwendet cookies",
        "verwenden cookies",
        "verwendung von cookies",
        "alle rechte vorbehalten",
        "allgemeine geschäftsbedingungen",
        "lorem ipsum",
    ),
    "fr": _list(
        "le la les de des et un une que est dans pour",
        "conditions d'utilisation",
        "conditions générales",
        "politique de confidentialité",
        "mentions légales",
        "utilise des cookies",
        "utilisons des cookies",
        "utilisation de cookies",
        "tous droits réservés",
        "lorem ipsum",
    ),
    "es": _list(
        "el la los las de que y en un una por con no",
        "condiciones de uso",
        "términos de uso",
        "política de privacidad",
        "política de cookies",
        "aviso legal",
        "utiliza cookies",
        "uso de cookies",
        "todos los derechos reservados",
        "lorem ipsum",
    ),
    "it": _list(
        "il la di che e un una per non con del della sono",
        "condizioni d'uso",
        "termini di utilizzo",
        "informativa sulla privacy",
        "utilizza cookie",
        "utilizza i cookie",
        "uso dei cookie",
        "note legali",
        "tutti i diritti riservati",
        "lorem ipsum",
    ),
    "pt": _list(
        "o a os de que e um uma em para com não do da",
        "termos de uso",
        "termos de serviço",
        "política de privacidade",
        "política de cookies",
        "utiliza cookies",
        "usa cookies",
        "uso de cookies",
        "todos os direitos reservados",
        "lorem ipsum",
    ),
    "nl": _list(
        "de het een van en in dat is te op voor met niet",
        "gebruiksvoorwaarden",
        "algemene voorwaarden",
        "privacybeleid",
        "privacyverklaring",
        "gebruikt cookies",
        "gebruik van cookies",
        "alle rechten voorbehouden",
        "lorem ipsum",
    ),
    "sv": _list(
        "och att det i en som är på för av med den",
        "användarvillkor",
        "integritetspolicy",
        "använder cookies",
        "alla rättigheter förbehållna",
        "lorem ipsum",
    ),
    "da": _list(
        "og at det i en som er på for af med den til",
        "brugsbetingelser",
        "privatlivspolitik",
        "bruger cookies",
        "alle rettigheder forbeholdes",
        "lorem ipsum",
    ),
    "no": _list(
        "og at det i en som er på for av med den til",
        "brukervilkår",
        "personvernerklæring",
        "bruker informasjonskapsler",
        "alle rettigheter forbeholdt",
        "lorem ipsum",
    ),
    "fi": _list(
        "ja on ei että se oli hän mutta joka tai kun",
        "käyttöehdot",
        "tietosuojaseloste",
        "käyttää evästeitä",
        "kaikki oikeudet pidätetään",
        "lorem ipsum",
    ),
    "pl": _list(
        "i w na z się nie do to że jest o a",
        "warunki korzystania",
        "polityka prywatności",
        "polityka cookies",
        "pliki cookie",
        "wszelkie prawa zastrzeżone",
        "lorem ipsum",
    ),
    "cs": _list(
        "a v na se je že z to o s do nebo",
        "podmínky použití",
        "obchodní podmínky",
        "ochrana osobních údajů",
        "soubory cookie",
        "všechna práva vyhrazena",
        "lorem ipsum",
    ),
    "ro": _list(
        "și de în la cu nu o un din este pe să",
        "termeni și condiții",
        "politica de confidențialitate",
        "utilizează cookie",
        "toate drepturile rezervate",
        "lorem ipsum",
    ),
    "hu": _list(
        "a az és hogy nem is egy van meg ez",
        "felhasználási feltételek",
        "adatvédelmi",
        "cookie-kat használ",
        "sütiket használ",
        "minden jog fenntartva",
        "lorem ipsum",
    ),
    "tr": _list(
        "ve bir bu da de için ile olarak her veya",
        "kullanım koşulları",
        "gizlilik politikası",
        "çerez politikası",
        "tüm hakları saklıdır",
        "lorem ipsum",
    ),
    "ru": _list(
        "и в не на что с по это как к из для",
        "пользовательское соглашение",
        "условия использования",
        "политика конфиденциальности",
        "файлы cookie",
        "все права защищены",
        "lorem ipsum",
    ),
    "uk": _list(
        "і в не на що з до та це як або",
        "умови використання",
        "політика конфіденційності",
        "файли cookie",
        "всі права захищені",
        "lorem ipsum",
    ),
    "bg": _list(
        "и на в да се от за не с е по",
        "условия за ползване",
        "политика за поверителност",
        "използва бисквитки",
        "всички права запазени",
        "lorem ipsum",
    ),
    "el": _list(
        "και το του της να η με που την από για",
        "όροι χρήσης",
        "πολιτική απορρήτου",
        "χρησιμοποιεί cookies",
        "με επιφύλαξη παντός δικαιώματος",
        "lorem ipsum",
    ),
    "ca": _list(
        "el la de i que a en un una els les per amb",
        "condicions d'ús",
        "política de privacitat",
        "política de galetes",
        "utilitza galetes",
        "tots els drets reservats",
        "lorem ipsum",
    ),
    "id": _list(
        "yang dan di dengan untuk dari ini itu tidak pada dalam",
        "syarat dan ketentuan",
        "kebijakan privasi",
        "menggunakan cookie",
        "hak cipta dilindungi",
        "lorem ipsum",
    ),
}


def base_language(name: str) -> str:
    """``en`` of ``en-US`` or ``EN_us``; lower case."""
    return name.replace("_", "-").partition("-")[0].lower()
