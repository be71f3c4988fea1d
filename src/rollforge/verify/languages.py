"""Which language a text is in: by its script, and where languages share one by their commonest words and letters.

Sure of texts of a sentence or more. A word or a name is no language, and relatives that are not listed pass for the nearest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

READ = 20_000
"""Characters that are looked at."""
FEW = 4
"""Words below which Latin letters say nothing of the language."""


def language_of(text: str) -> str | None:
    """ISO 639-1 of the language that two thirds of the text are in; None if it is too short, or nothing prevails."""
    text = _ADDRESS.sub(" ", text[:READ].lower())
    scripts = Counter(found.lastgroup for found in _SCRIPT.finditer(text))
    if not scripts:
        return None
    kana = scripts.pop("kana", 0)
    scripts["han"] += kana
    # One sign is about as much as three letters.
    scripts["han"] *= 3
    scripts["hangul"] *= 2
    script, count = scripts.most_common(1)[0]
    if 3 * count <= 2 * scripts.total() or script is None:
        return None
    if script == "han":
        return "ja" if 10 * kana * 3 > scripts["han"] else "zh"
    if script in _ONLY:
        return _ONLY[script]
    return _by_words(text, script)


def _by_words(text: str, script: str) -> str | None:
    words = _WORD.findall(text)
    common = {name: _STOP[name] for name in _OF_SCRIPT[script]}
    letters = Counter(text)
    points = {
        name: sum(word in stop for word in words) + sum(letters[letter] for letter in _LETTERS.get(name, ""))
        for name, stop in common.items()
    }
    best, second = sorted(points, key=lambda name: -points[name])[:2]
    if script != "latin":
        return best if points[best] > points[second] else None
    # Single letters are also names of variables, and one word may be chance.
    long = sum(word in common[best] for word in words if len(word) > 1)
    few = len(words) < FEW or 12 * points[best] < len(words) or not long or points[best] < 2
    return None if few or points[best] == points[second] else best


_ADDRESS = re.compile(r"\b(?:https?://|www\.)\S+")
_SCRIPT = re.compile(
    "(?P<latin>[a-z\u00df-\u024f\u1e00-\u1eff])|(?P<cyrillic>[\u0400-\u052f])|(?P<greek>[\u0370-\u03ff])"
    "|(?P<hebrew>[\u05d0-\u05ea])|(?P<arabic>[\u0620-\u06d3])|(?P<devanagari>[\u0904-\u0939\u0958-\u0961])"
    "|(?P<bengali>[\u0985-\u09b9])|(?P<gurmukhi>[\u0a05-\u0a39])|(?P<gujarati>[\u0a85-\u0ab9])|(?P<tamil>[\u0b85-\u0bb9])"
    "|(?P<telugu>[\u0c05-\u0c39])|(?P<kannada>[\u0c85-\u0cb9])|(?P<malayalam>[\u0d05-\u0d39])|(?P<thai>[\u0e01-\u0e2e])"
    "|(?P<hangul>[\uac00-\ud7a3])|(?P<kana>[\u3041-\u30fa])|(?P<han>[\u4e00-\u9fff])"
)
# With the signs that join letters in the scripts of India, which \w leaves out.
_WORD = re.compile(r"[^\W\d_]+(?:[\u0900-\u0903\u093a-\u094f\u0300-\u036f]+[^\W\d_]*)*")
_ONLY = {
    "greek": "el",
    "hebrew": "he",
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "tamil": "ta",
    "telugu": "te",
    "kannada": "kn",
    "malayalam": "ml",
    "thai": "th",
    "hangul": "ko",
}
_OF_SCRIPT: Mapping[str, tuple[str, ...]] = {
    "latin": tuple("en de fr es pt it nl pl cs ro sv da fi tr vi id sw hu".split()),  # noqa: SIM905
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa", "ur"),
    "devanagari": ("hi", "mr", "ne"),
}
_LETTERS = {
    "de": "ß",
    "fr": "œêè",
    "es": "ñ¿¡",
    "pt": "ãõ",
    "pl": "łżźćśńęą",
    "cs": "řěůď",
    "ro": "țșţş",
    "da": "øæ",
    "tr": "ığş",
    "vi": "ơưđạảấầậắặẹếềểệịọốồộớờợụủứừựỳ",
    "hu": "őű",
    "ru": "ыэё",
    "uk": "іїєґ",
    "ar": "ةىيكأإؤئ",
    "fa": "پچژگیک",
    "ur": "ٹڈڑںےہھ",
    "mr": "ळ",
}
_COMMON = {
    "en": "the of and to in is that it for was on are with as be at this have from not by you or but we they which will"
    " i a an your my our he she his her can all if there so what has one more do would their no me",
    "de": "der die das und ist nicht ein eine zu den mit von auf für im dem sich des auch es ich wir sie als an wird sind"
    " einen einer oder aber wie bei man nur noch haben hat kann um aus wenn so zum zur dass ihr mein werden",
    "fr": "le la les de des et est un une du en que qui dans pour pas sur il elle au ce se plus avec par nous vous sont"
    " je tu mais ou où être cette ces son sa ses leur aux ont fait comme on à tout très d l c qu j n s",
    "es": "el la los las de que y en un una es por con para no se del al lo su más como pero está son este fue ha muy"
    " sus o me mi te tu si cuando también hay donde nos esta ser yo porque sin sobre todo",
    "pt": "o a os as de que e em um uma é para não com se do da dos das no na por mais como mas foi são ao está isso"
    " ou seu sua você eu nos nas pelo pela também muito ser tem já quando ele ela à",
    "it": "il lo la gli le di che e in un una è per non con si del della dei sono come più anche ma nel alla ha questo"
    " i al da su o mi ti ci questa essere delle dell l un c quando molto io tutti hanno nella",
    "nl": "de het een en van in is dat op te zijn met voor niet aan er om ook als maar door bij naar wordt ze wij deze"
    " ik je we of uit nog kan heeft worden hebben was dit die wat over",
    "pl": "i w na z do nie się że jest to jak o po co dla od są przez ale czy był tego który już tylko jego tym ze"
    " oraz lub jego ich jako być może bardzo a ma tak za pod która które mnie",
    "cs": "a v na se je to že s z do o i ale jak pro k tak by jsou jeho který jsem po která za od být bude už při",
    "ro": "și de la în a cu pe nu este să un o că din care pentru mai sunt ce le se au fost al ca sau dar acest",
    "sv": "och att det i en är som på för med av inte den till har de ett om var jag men vi kan från så eller när",
    "da": "og at det i en er som på for med af ikke den til har de et om var jeg men vi kan fra så eller når",
    "fi": "ja on ei se että oli hän mutta ovat joka kun niin tai myös sen olla tämä kuin minä mitä vain ole voi hyvin"
    " sekä jos me te he sinä jotka nyt kaikki ovat mukaan olen olemme",
    "tr": "ve bir bu da de için ile çok ne gibi daha olarak var ama en olan değil kadar ben sen biz sonra her şey mi",
    "vi": "và của là có không được cho một các trong này với những người để đã khi từ đến như cũng về tôi bạn rất",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam akan pada adalah juga ke saya bisa ada kami mereka atau",
    "sw": "na ya wa ni kwa katika za la kuwa hii yake au kama si pia watu huo hiyo lakini hayo yao ili sana mimi wewe"
    " moja wote cha vya kila ambayo kuna",
    "hu": "a az és hogy nem is egy ez van meg de csak el volt ki már mint vagy még azt ha fel lehet nagyon",
    "ru": "и в не на что с по как это но из он она они для от к у за же так мы вы я был все его то бы или если очень",
    "uk": "і в не на що з та до як це але у він вона вони для від за ж так ми ви я був його то або якщо дуже є про",
    "bg": "и в не на че с по как това но от той тя те за към у така ние вие аз беше всички го да се е са или ако много"
    " със във което който като ще няма има",
    "ar": "في من على إلى أن هذا هذه التي الذي كان ما لا مع عن هو هي كل أو ثم بعد قد لم",
    "fa": "در از که این به را با است آن برای و تا می هم بر یک ما شما هستند بود شد کرد",
    "ur": "کے کی میں ہے اور سے کا کو پر یہ نے ہیں بھی کہ جو نہیں تھا ایک کر اس",
    "hi": "है में के की का और को से हैं पर यह कि नहीं एक भी ने था कर लिए हो तो ही जो इस आप मैं हम वह थे थी",
    "mr": "आहे आणि या च्या ते हे की आहेत नाही होते होता हा ही तर एक मध्ये साठी मी तो ती झाले आम्ही असे करण्यासाठी आपण",
    "ne": "छ र मा को हो यो छन् पनि गर्न लाई भएको ले तर हुन्छ गरेको छैन थियो म हामी तपाईं एक यस हुन् गर्छ थिए गर्नुहोस्",
}
_STOP = {name: frozenset(words.split()) for name, words in _COMMON.items()}
LANGUAGES = frozenset((*_STOP, *_ONLY.values(), "ja", "zh"))
