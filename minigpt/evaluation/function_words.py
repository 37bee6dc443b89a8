"""English function words: the closed classes, whose members a grammar can list; every other word is a content word.

Classes after Quirk, Greenbaum, Leech and Svartvik (1985), A Comprehensive Grammar of the English Language, chapters 2
(closed classes), 3 (auxiliaries), 5 (determiners), 6 (pronouns), 9 (prepositions), 13 and 14 (conjunctions). Forms of
early modern English after Lass (1999), The Cambridge History of the English Language III, chapter 3: they fill the King
James Bible and Shakespeare.

A word is classed by its form alone, without its context: "that", "like", "will", "might", "past" and "art" always
count as function words, which is right most of the time.
"""

import re
from collections.abc import Mapping

FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    name: frozenset(forms.split())
    for name, forms in {
        "determiner": """a an the this that these those yon yonder each every either neither some any no all both half
            such another other others enough several many much few little fewer less more most least what which
            whichever whatever whatsoever""",
        "pronoun": """i me my mine myself thou thee thy thine thyself ye you your yours yourself yourselves he him his
            himself she her hers herself it its itself we us our ours ourselves they them their theirs themselves
            one oneself who whom whose whoever whomever whoso whosoever whomsoever which that
            somebody someone something anybody anyone anything nobody nothing none everybody everyone everything
            aught ought naught nought""",
        "preposition": """about above across after against along alongside amid amidst among amongst around as at
            athwart before behind below beneath beside besides between betwixt betwixen beyond but by concerning
            despite down during ere except excepting for from in inside into like near nigh of off on onto opposite
            out outside over past per regarding round save since through throughout till to toward towards under
            underneath until unto up upon via with within without""",
        "conjunction": """and or nor but yet so for if unless lest except albeit although though because since as than
            that when whenever whensoever where whereas wherever wheresoever whether while whilst until till before
            after once whereby wherefore whereof wherein whereon whereto whereunto whereupon wherewith""",
        "auxiliary": """be am is are was were been being art wast wert have has had having hast hath hadst do does did
            doing done dost doth didst can could canst couldst may might mayest mayst mightest must shall should shalt
            shouldest shouldst will would wilt wouldest wouldst ought need dare let""",
        "particle": """not never to there here then thus now also too very how why however hence thence whence hither
            thither whither therefore thereof therein thereon thereto thereunto thereby therewith herein hereof hereby
            yea nay yes o oh""",
    }.items()
}

_ALL = frozenset().union(*FUNCTION_WORDS.values())
_CONTRACTED = re.compile(r"(?:n['’]t|['’](?:s|m|re|ve|d|ll|t))$")


def is_function_word(word: str) -> bool:
    """Whether a word belongs to a closed class, in any case of letters; "don't" and "he'll" do, "God's" does not."""
    lower = word.lower()
    return (
        lower in _ALL or (stem := _CONTRACTED.sub("", lower)) in _ALL or (stem != lower and stem in ("ca", "wo", "sha"))
    )
