"""Prompt checks: identifiers found and nothing else refused, slips, unseen and ambiguous words, all measured."""

import json
import re
import string
import subprocess
import sys
import warnings

import ambiguous_words
import numpy as np
import pytest
from generator import captions

from medimgen import generate, prompts, report
from medimgen.data import manifest
from medimgen.data.fetch import is_fetched
from medimgen.errors import CourseError
from medimgen.paths import ROOT

RECORDED = json.loads(ambiguous_words.RESULT.read_text(encoding="utf-8"))

# Invented. The patterns were written and mended with these at hand.
PLANTED = {
    "a name": """
        chest x-ray of Mr Braithwaite | Mrs. Okonkwo, viral pneumonia | chest film for Ms Lindqvist |
        x-ray, Dr Abernathy's patient | Thorax von Frau Müller-Lüdenscheidt | Herr Krause, chest radiograph |
        radio du thorax de Mme Lefèvre | M. Dubois, pneumonia | Miss O'Hara, normal lungs |
        patient Anna Kowalska with pneumonia | Patient: Jonas Weber, chest x-ray | patient SCHMIDT, viral pneumonia |
        chest x-ray of a boy called Timothy | a girl named Aoife Byrne, bacterial pneumonia |
        name: hans meier, chest x-ray | KOWALSKA^ANNA chest x-ray | chest x-ray, Prof. Dr. Steinmann |
        child Leonie, blurred film | dr. house's chest x-ray | mrs tanaka chest film | surname = Petrov, normal |
        Baby Johansson, chest film
    """,
    "a date": """
        chest x-ray taken 2023-04-17 | film of 17/04/2023, normal | x-ray 17.04.23, bacterial pneumonia |
        4/17/2023 chest x-ray | viral pneumonia on 5 May 2021 | chest film, 3rd of October 1998 |
        November 21, 2019: pneumonia | radiograph from June 2020 | born 12 Mar 61, chest x-ray | study date 20230417 |
        Aufnahme vom 3. März 2018 | thorax du 14 juillet 2016 | chest x-ray 07-JAN-2022 | DOB: 120361, dark film |
        dob 12.3.61 | 2023/4/7 chest film, sharp
    """,
    "an age over 89": """
        chest x-ray of a 94-year-old | woman aged 97, pneumonia | 103 year old man, normal |
        90 y/o with viral pneumonia | a centenarian's chest film | ninety-one-year-old patient, x-ray |
        age: 92, white lungs | 92yo male
    """,
    "an e-mail address": """
        chest x-ray for m.tanaka@clinic.example | send to jo_b+x@mail.example.org, normal
    """,
    "a telephone or fax number": """
        call 0171 555 2368, chest film | chest x-ray, tel +49 30 901820 | phone: 555-0199 pneumonia |
        (415) 555-2671, viral pneumonia | fax 030/1234567, normal | 212-555-0187 chest x-ray | mobile 07700 900461, film
    """,
    "a record or account number": """
        MRN 00482913, bacterial pneumonia | chest x-ray, MRN: A-77213 | accession number 8841207 |
        Patient ID 55812, normal film | case no. 1187, viral pneumonia | case #2231 | account 4471-2290 |
        record 77120, chest x-ray | PID=330912 | acc. no. CR2201934
    """,
    "a long number": """
        chest x-ray 83920174 | film 6630 1192 8841 20
    """,
    "a unique identifier (UID)": """
        1.2.840.113619.2.55.3.604688119 chest x-ray | SOP 2.25.329800735698586629295641978511506172918 |
        x-ray a81bc81b-dead-4e5d-abff-90865d1e13b1
    """,
    "a social security number": """
        SSN 219-09-9999, chest film | chest x-ray, 457-55-5462
    """,
    "a health service number": """
        NHS 485 777 3456, pneumonia | NHS no. 4857773456 | 485 777 3456 chest film | insurance no. X120338841
    """,
    "a postcode or street": """
        chest x-ray, child from LS2 9JT | patient of EC1A 1BB, normal | child of 221b Baker Street, pneumonia |
        Lindenstraße 7, chest x-ray | film, 10117 Berlin | ZIP 02139, viral pneumonia
    """,
    "a web address": """
        https://pacs.example/study/88 chest x-ray | like www.example.org/film.png
    """,
    "a network address": """
        chest film from 203.0.113.44 | x-ray at fe80:0:0:0:202:b3ff
    """,
}
# Written to be hard, then afterwards, with the patterns finished; some of these led to further patterns.
LATER = """
    chest xray john smith dob 12/3/61 | pt. Maria Gonzales, pneumonia | pt john smith, chest film |
    Smith, John; chest x-ray | JOHN SMITH CHEST | x-ray of Mister Jones | Professor Weiss's lungs |
    Señora Ruiz, viral pneumonia | Hr. Jensen, normal | lungs of my neighbour Klaus |
    anna.kowalska at example dot org | chest film 12 / 04 / 2023 | x-ray of the 5th of may |
    film of christmas day 2021 | 04-2023 chest film | chest film, 2023-04 | ninety year old, pneumonia |
    a woman in her nineties | age 90+, normal | 97 y.o. female | 95yr old man | 101-jährige Patientin, Thorax |
    hospital number RT4471903 | Fall-Nr. 2018/4471 | Röntgen-Nr 88213, Thorax | NIP 44051401359 | N° dossier 228817 |
    StudyInstanceUID 1.3.12.2.1107.5.1.4 | 0049 89 2180 0, normal | +1-202-555-0143 | 07700 900 982 |
    QQ 12 34 56 C, chest film | 1 85 05 78 006 084 36 | child from M1 1AE | child from ec1a 1bb |
    12 rue de Rivoli, chest x-ray | Rua Augusta 22 | 75004 Paris, normal | pacs.example.org/study/7 |
    ftp://films.example/7 | @anna_k, chest x-ray | plate B-MW 4471 | passport C01X00T47 | serial no. SN-99-4471 |
    case number seven-one-four | the mayor's chest film | Ms Adebayo-Clarke, 34, chest x-ray |
    viral pneumonia in Mr. van der Berg | chest x-ray for patient Ingrid | patient name Rosa Alvarez, normal |
    x-ray of Rosa Alvarez | first name: Piotr | YAMADA^TARO | chest radiograph, Dr. Nkemelu |
    little Emma's chest film | pneumonia, Mme. Girard | film dated 09.11.2021 |
    chest x-ray on the 22nd February 2020 | Feb 3 2018, viral pneumonia | 02/30/19 chest film |
    admission 2022-12-01T08:15 | Sept. 2017 chest x-ray | discharged on 11-11-20 | yesterday's film, 8 Aug |
    born 4 July 1976 | bacterial pneumonia, aged 90 | 99 year-old lady | 96-yr-old | chest of a woman of 93 |
    m.rossi@ospedale.example | +39 06 5550 1234 | ring 555 0123 | tel: (0)20 7946 0018 | cell 917.555.0166 |
    fax: 5550147 | MRN#5512093 | mrn = 77-1204 | hosp. no. 448812 | acc 20230091 | Patient-ID: K7781 |
    chart number 3391 | scan 1182-44-A | 1.3.6.1.4.1.14519.5.2.1 x-ray | SSN: 123 45 6789 | NHS 9434765919 |
    policy number ZX-441-209 | chest x-ray, BT7 1NN | lives at 9 Queen Mary Road | Bahnhofstr. 3, normal |
    90210 Beverly Hills | http://192.0.2.8/img | 10.0.0.14
"""
# Those of LATER that no pattern sees.
MISSED = """
    pt john smith, chest film | Smith, John; chest x-ray | JOHN SMITH CHEST | lungs of my neighbour Klaus |
    anna.kowalska at example dot org | film of christmas day 2021 | child from ec1a 1bb | plate B-MW 4471 |
    case number seven-one-four | the mayor's chest film | x-ray of Rosa Alvarez | little Emma's chest film |
    chest of a woman of 93 | ring 555 0123 | scan 1182-44-A
"""
LEGITIMATE = """
    chest x-ray 128 x 128 pixels | T1-weighted MR image of the brain | MR BRAIN, FLAIR | MS lesions in a child |
    CT of the spine at L1, 4 mm slices | chest film with Kerley B lines | COVID-19 pneumonia |
    child with Down syndrome | Swan-Ganz catheter, chest film | PA view, 120 kV, 2.5 mAs |
    chest x-ray of a 12-year-old boy | an 89-year-old woman, normal | aged 5, viral pneumonia | a patient of 3 years |
    patient rotated by 10 degrees | a case of bacterial pneumonia | slices of 1.5 mm | contrast-to-noise ratio 10.5 |
    pH 7.35 | 2 of 10 films, blurred | opacity that may show an effusion | in 3 may be an effusion |
    march fracture of the 2nd metatarsal | DR chest film | dr chest film, sharp |
    Chest X-Ray Of A Young Patient With Viral Pneumonia | CHEST X-RAY, NORMAL | no patient data | patient 2 of 5 |
    image no 3 | case 7 | grade 3 opacity | stage 1.2.3 | ICD-10 J18.9 | ISO 400 film | 95 % of the lungs | 95 kV |
    exposure 1/60 s | ratio 1:20 | 0.5 to 0.7 opacity | seed 7, guidance 2.0 | 512x512 image, 16 bit |
    a film of the 1990s | radiograph from 1998 | x-ray at 10.30 | id card in the picture | call it normal |
    a file of films | a chest x-ray named normal | Miss nothing: normal lungs | street scene, no lungs |
    T4 to T8 vertebrae | C5 level, upright | lung of 5 - 10 cm | 10-12 ribs visible | 12 ribs, 2 lungs |
    -5 degrees tilt | +20 % exposure | mark 2, tilted | Prof of concept
"""


def listed(text):
    """The prompts of one of the lists above."""
    return [prompt.strip() for prompt in text.split("|")]


def refused(prompt):
    try:
        prompts.refuse_identifiers(prompt)
    except CourseError:
        return True
    return False


def kinds(prompt, *wanted):
    return [(r.kind, r.word) for r in prompts.check(prompt) if not wanted or r.kind in wanted]


def all_captions():
    """More than a thousand captions as the generator's training drew them."""
    rng = np.random.default_rng(0)
    levels = ({name: int(rng.integers(-1, 2)) for name in captions.WORDS} for _ in range(500))
    return {captions.caption(kind, level, rng) for level in levels for kind in captions.KINDS}


def taught():
    """Every prompt that a notebook or lesson gives to a generator; lessons 2 and 4 show what is refused, too."""
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "lessons").glob("*.md")]
    files = [path for path in files if not path.name.startswith(("02-", "04-"))]
    text = "".join(path.read_text(encoding="utf-8") for path in files).replace('\\"', '"')
    return set(re.findall(r'generator\("([^"]+)"', text)) | set(re.findall(r'"(chest x-ray[^"]*)"', text))


# Identifiers


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_identifiers_are_refused_by_kind_and_rule(kind):
    for prompt in listed(PLANTED[kind]):
        assert kind in {found for found, _, _ in prompts.identifiers(prompt)}, prompt
        with pytest.raises(CourseError, match=r"164\.514\(b\)\(2\)\(i\)\([A-R]\)(.|\n)*GDPR(.|\n)*Next: take it out"):
            prompts.refuse_identifiers(prompt)


def test_recall_is_what_the_docstring_says():
    later = listed(LATER)
    assert [prompt for prompt in later if not refused(prompt)] == listed(MISSED)
    every = [*later, *(prompt for text in PLANTED.values() for prompt in listed(text))]
    assert len(set(every)) == len(every) >= 60
    told = f"{sum(map(refused, every))} of {len(every)} invented prompts"
    assert told in " ".join(prompts.__doc__.split())


def test_legitimate_prompts_pass():
    many = [*all_captions(), *taught(), *listed(LEGITIMATE)]
    assert len(listed(LEGITIMATE)) >= 60 and len(taught()) >= 5 and len(many) > 1000
    forms = (str, str.capitalize, str.upper, str.title)
    refusals = [form(prompt) for prompt in many[: -len(listed(LEGITIMATE))] for form in forms if refused(form(prompt))]
    assert refusals + [prompt for prompt in listed(LEGITIMATE) if refused(prompt)] == []


def test_each_pattern_finds_its_example_and_is_needed():
    rows = prompts._rows(prompts.IDENTIFIERS)
    assert len(rows) == len(prompts.patterns()) == len({row["example"] for row in rows})
    for k, (row, (kind, letter, pattern)) in enumerate(zip(rows, prompts.patterns(), strict=True)):
        assert pattern.search(row["example"]) and re.fullmatch("[A-R]", letter), row
        assert not any(p.search(row["example"]) for _, _, p in prompts.patterns()[:k]), row
        assert kinds(row["example"], "identifier"), (kind, row)


def test_an_identifier_is_never_repeated():
    prompt = "chest x-ray of Mr Featherstone, 12/03/1961"
    remarks = prompts.check(prompt)
    assert [(r.kind, r.word) for r in remarks] == [("identifier", "••/••/••••"), ("identifier", "•• ••••••••••••")]
    with pytest.raises(CourseError) as caught:
        prompts.refuse_identifiers(prompt)
    for text in (str(caught.value), prompts.show_remarks(prompt), repr(remarks)):
        assert "Featherstone" not in text and "1961" not in text


def test_the_generator_refuses_before_it_runs_or_records(tmp_path):
    generator = generate.Generator(None, {"steps": 4, "guidance": 1.0}, "0" * 64)  # no pipeline: running would fail
    for arguments in (("normal, Mrs Doe",), ("normal", 1, 0, None, None, "not like Mrs Doe")):
        with pytest.raises(CourseError, match="a name"):
            generator(*arguments)
    with pytest.raises(CourseError, match="a name"):
        list(generator.stream([("normal", 1), ("normal, Mrs Doe", 2)], folder=tmp_path / "kept"))
    assert not list(tmp_path.iterdir())


# Slips and unseen words


def slips(word):
    """Every text one letter away from a word, and every exchange of neighbours."""
    letters, ends = string.ascii_lowercase, range(len(word) + 1)
    made = {word[:i] + word[i + 1 :] for i in ends} | {word[:i] + c + word[i:] for i in ends for c in letters}
    made |= {word[:i] + c + word[i + 1 :] for i in ends[:-1] for c in letters}
    return made | {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in ends[:-2]}


def test_every_slip_is_found_and_names_the_word():
    known = {prompts._key(word): word for word in prompts.shipped_words()}
    total = unseen = 0
    for key, word in known.items():
        for slip in slips(key) - known.keys() if len(key) >= prompts.SHORTEST else ():
            remark = next(r for r in prompts.check(slip) if r.kind != "ambiguous")
            assert f'"{word}"' in remark.message.partition(": ")[2], (slip, remark)
            total, unseen = total + 1, unseen + (remark.kind == "unseen")
    assert total > 15000 and unseen / total < 0.01


def test_no_word_of_the_vocabulary_is_mistaken():
    for word in prompts.shipped_words():
        assert prompts.check(word) == prompts.check(word.upper()) == [], word
    assert all(kinds(caption) == [] for caption in all_captions() if "<unknown>" not in caption)


def test_ordinary_words_are_unseen_not_misspelt():
    """All words of the course's own pages: fewer than one in a hundred may be called a slip."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lessons").glob("*.md"))
    text = re.sub(r"(?s)```.*?```|`[^`]*`|\{[^}]*\}|https?://\S+", " ", text)
    words = {word.lower() for word in re.findall(r"(?<![\w-])[A-Za-z]{3,}(?![\w-])", text)}
    words -= {prompts._key(word) for word in prompts.shipped_words()}
    called = [word for word in words if kinds(word, "spelling")]
    assert len(words) > 800 and len(called) / len(words) < 0.01, called
    assert kinds("heart") == [("unseen", "heart")] and kinds("lung") == []
    assert 'nearest word that it knows is "white"' in prompts.check("while")[0].message


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("chest X-ay, bacterial pneumonia", [("spelling", "X-ay")]),
        ("Chest X-Ray; (normal)!", []),
        ("chest x ray / xray/X-RAY -- film", []),
        ("chset x-ray, chset film", [("spelling", "chset")]),
        ("<pad> film - heart, heart.", [("unseen", "<pad>"), ("unseen", "heart")]),
        ("", []),
    ],
)
def test_words_punctuation_and_hyphens(prompt, found):
    assert kinds(prompt) == found


def test_another_vocabulary():
    assert [r.kind for r in prompts.check("T2-weighted brian", ["brain", "T2-weighted"])] == ["spelling"]
    assert 'did you mean "x-ray"?' in prompts.show_remarks("X-ay") and "Nothing" in prompts.show_remarks("x-ray")
    with pytest.raises(CourseError, match="not text"):
        prompts.check(None)


def test_the_tokenizer_and_the_list_of_words_agree():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prompts.TOKENIZER.parent, local_files_only=True)
    text = "Chest X-ay, X-Ray of the heart/lungs; film-like, é 12 lungs"
    seen = [word for _, word in kinds(text, "spelling", "unseen")]
    assert prompts.unseen_words(tokenizer, text) == seen == ["X-ay", "heart/lungs", "film-like", "é", "12"]


def test_import_is_light():
    code = "import sys, medimgen.prompts; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Ambiguous words


def test_the_package_ships_what_was_measured():
    assert prompts.TABLE.read_text(encoding="utf-8") == ambiguous_words.table(
        RECORDED["words"], sorted(prompts._words()[0])
    )
    for row in RECORDED["words"]:
        ours, theirs = row["cosines"]
        assert row["margin"] == pytest.approx(ours - theirs, abs=0.0016)
        assert row["ambiguous"] == (row["margin"] < ambiguous_words.LIMIT)
        assert row["settled_by"] == [c for c, m in row["contexts"].items() if m >= ambiguous_words.LIMIT]
    shipped = {row["word"] for row in prompts._words()[1].values()}
    assert shipped == {row["word"] for row in RECORDED["words"] if row["ambiguous"] and not row["control"]}
    ordinary = sorted(prompts._words()[0])
    assert ordinary == ambiguous_words.ordinary(ordinary) and RECORDED["ordinary"] == ambiguous_words.told(ordinary)


def test_the_result_answers_what_the_recipe_asks_today():
    asked = [(word, ours, theirs) for word, ours, _, theirs, _, _ in ambiguous_words.WORDS]
    assert [(row["word"], row["radiology"], row["elsewhere"]) for row in RECORDED["words"]] == asked
    assert RECORDED["otherwise_than_expected"] == ambiguous_words.surprises(RECORDED["words"])
    (run,) = [r for r in report.read(report.RUNS) if r.id == RECORDED["run"]]
    assert (run.what, run.outcome) == ("ambiguous_words", "ok")
    assert run.inputs == {"model.safetensors": RECORDED["encoder"]["sha256"]}
    weights = {file.path: file.sha256 for file in manifest.registry(ambiguous_words.ENCODER)}
    assert run.inputs.items() <= weights.items()


def test_no_sense_holds_its_word():
    for word, _, ours, _, theirs, _ in ambiguous_words.WORDS:
        assert prompts._key(word) not in {prompts._key(w) for w in prompts.words_of(f"{ours} {theirs}")}, word


def test_ambiguous_until_a_context_settles_it():
    settled = next(r for r in RECORDED["words"] if r["word"] == "CAT")["settled_by"]
    assert kinds("a CAT image", "ambiguous") == [("ambiguous", "CAT")] and settled
    assert all(kinds(f"a cat image, {context}", "ambiguous") == [] for context in settled)
    assert "computed tomography or the animal" in prompts.show_remarks("a CAT image")
    never = [row["word"] for row in RECORDED["words"] if row["ambiguous"] and not row["settled_by"]]
    assert never and all(kinds(f"{word} on a chest x-ray", "ambiguous") for word in never)
    assert kinds("film") == [] and prompts.check("film", ["plate"])[-1].kind == "ambiguous"


@pytest.mark.slow
def test_the_recipe_gives_it_again():
    """Compared where the encoder is; elsewhere the run says that it was not."""
    if not is_fetched(ambiguous_words.ENCODER):
        warnings.warn("ambiguous_words.json was not made again: no encoder", stacklevel=1)
        return
    words, ordinary = ambiguous_words.measure()
    assert ambiguous_words.told(ordinary) == RECORDED["ordinary"]
    for new, old in zip(words, RECORDED["words"], strict=True):
        assert new["cosines"] == pytest.approx(old["cosines"], abs=0.002) and new["settled_by"] == old["settled_by"]
