"""Texts of every kind that a user may bring: without spaces, right to left, with combining marks, without any word.

Sentences of the Universal Declaration of Human Rights (United Nations, 1948) and of the Tao Te Ching, put together at
random up to the length that is asked for, so that no text says the same thing twice in the same place.
"""

import inspect
import random
from collections.abc import Callable, Sequence

CHINESE = """道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。
天下皆知美之为美，斯恶已。皆知善之为善，斯不善已。
人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。
人人有资格享有本宣言所载的一切权利和自由，不分种族、肤色、性别、语言、宗教。
上善若水。水善利万物而不争，处众人之所恶，故几于道。
知人者智，自知者明。胜人者有力，自胜者强。
合抱之木，生于毫末；九层之台，起于累土；千里之行，始于足下。
人人有权享有生命、自由和人身安全。任何人不得使为奴隶或奴役。""".splitlines()

HEBREW = """כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.
כולם חוננו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחווה.
כל אדם זכאי לזכויות ולחרויות שנקבעו בהכרזה זו ללא הפליה כלשהי.
כל אדם יש לו הזכות לחיים, לחרות ולבטחון אישי.
לא יהיה אדם עבד או משועבד; עבדות וסחר עבדים ייאסרו לכל צורותיהם.
בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם וְאֵת הָאָרֶץ.""".splitlines()

ARABIC = """يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.
وقد وهبوا عقلًا وضميرًا وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.
لكل إنسان حق التمتع بكافة الحقوق والحريات الواردة في هذا الإعلان، دون أي تمييز.
لكل فرد الحق في الحياة والحرية وسلامة شخصه.
لا يجوز استرقاق أو استعباد أي شخص، ويحظر الاسترقاق وتجارة الرقيق بكافة أوضاعهما.
هل للناس كلهم حق في التعليم؟ نعم، يجب أن يكون التعليم بالمجان.""".splitlines()

HINDI = """सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।
उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।
प्रत्येक व्यक्ति को जीवन, स्वाधीनता और वैयक्तिक सुरक्षा का अधिकार है।
कोई भी ग़ुलामी या दासता की हालत में न रखा जाएगा।
हर किसी को हर जगह क़ानून की निगाह में व्यक्ति के रूप में स्वीकृति प्राप्ति का अधिकार है।
क्या सबको शिक्षा का अधिकार है? हाँ, शिक्षा कम से कम प्रारम्भिक अवस्थाओं में निःशुल्क होगी।""".splitlines()

ENGLISH = """All human beings are born free and equal in dignity and rights.
They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.
Everyone is entitled to all the rights and freedoms set forth in this Declaration, without distinction of any kind.
Everyone has the right to life, liberty and security of person.
No one shall be held in slavery or servitude; slavery and the slave trade shall be prohibited in all their forms.
Has everyone the right to education? Education shall be free, at least in the elementary stages.""".splitlines()

EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵", "❤️", "🎉", "🔥", "✨", "🙈", "1️⃣", "☕", "🧑🏿‍🚀", "🦄"]


def _of(sentences: Sequence[str], joint: str, end: str) -> Callable[[int], str]:
    """Paragraphs of one to four sentences, in random order."""

    def text(length: int) -> str:
        drawn, paragraphs, size = random.Random(length), [], 0
        while size < length:
            paragraphs.append(joint.join(drawn.choices(sentences, k=drawn.randint(1, 4))) + end)
            size += len(paragraphs[-1])
        return "".join(paragraphs)[:length]

    return text


def _code(length: int) -> str:
    return inspect.getsource(inspect)[:length]


def _csv(length: int) -> str:
    drawn, lines = random.Random(length), ["id,date,amount,note"]
    while sum(map(len, lines)) + len(lines) < length:
        amount, note = f"{drawn.gauss(0, 900):.2f}", drawn.choice(["", "paid", '"late, again"', "NULL"])
        lines.append(f"{len(lines)},20{drawn.randint(10, 29)}-{drawn.randint(1, 12):02d}-01,{amount},{note}")
    return "\n".join(lines)[:length]


def _two(characters: str) -> Callable[[int], str]:
    return lambda length: "".join(random.Random(length).choices(characters, k=length))


KINDS: dict[str, Callable[[int], str]] = {
    "chinese": _of(CHINESE, "", "\n"),
    "hebrew": _of(HEBREW, " ", "\n"),
    "arabic": _of(ARABIC, " ", "\n"),
    "hindi": _of(HINDI, " ", "\n"),
    "emoji": _of(EMOJI, "", ""),
    "code": _code,
    "csv": _csv,
    "one line": _of(ENGLISH, " ", " "),
    "two letters": _two("ab"),
    "a mark and a space": _two(". "),
    "english": _of(ENGLISH, " ", "\n\n"),
}
