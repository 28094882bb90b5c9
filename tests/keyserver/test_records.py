import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.auditlog.records import encode, parse, parse_lines, rfc3339
from keyserver.errors import Malformed
from keyserver.messages import FilePath, Record
from tests.keyserver.company import NOON


def test_the_canonical_form_leaves_defaults_out_and_keeps_the_order():
    file = FilePath("/sales/ä.docx", "0a" * 16)
    record = Record(seq=3, time=rfc3339(NOON), machine="m", event="open", user="li", uid=0, file=file, bytes_read=5)
    assert encode(record).decode() == (
        '{"seq":3,"time":"2026-09-21T14:13:20.000000Z","machine":"m","event":"open","user":"li","uid":0,'
        '"file":{"path":"/sales/ä.docx","id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"},"bytes_read":5}'
    )


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**62), st.floats(0, 4e9))
def test_a_record_survives_its_encoding(text, number, time):
    record = Record(1, rfc3339(time), "m", "copy", user=text, bytes_written=number, to=text, detail=text)
    assert parse(encode(record).decode()) == (record, encode(record))


GOOD = '{"seq":1,"time":"2026-09-21T14:13:20.000000Z","machine":"m","event":"open"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        GOOD[:-1],
        GOOD.replace(":1,", ": 1,"),
        GOOD.replace("}", ',"user":""}'),
        GOOD.replace("}", ',"more":1}'),
        GOOD.replace('"seq":1,', "").replace("}", ',"seq":1}'),
        GOOD.replace("open", "\\u006fpen"),
        GOOD.replace(".000000Z", "Z"),
        GOOD.replace(".000000Z", ".000000+00:00"),
        GOOD.replace("}", ',"detail":"' + "x" * 70_000 + '"}'),
    ],
)
def test_anything_but_the_canonical_form_is_malformed(text):
    parse(GOOD)
    with pytest.raises(Malformed):
        parse(text)


@pytest.mark.parametrize(
    "lines",
    [
        GOOD + "\n" + GOOD,
        "\n",
        GOOD + "\n\n",
        GOOD + "\r\n",
        " " + GOOD + "\n",
        GOOD + GOOD + "\n",
        GOOD + "\n" + GOOD.replace('"seq":1', '"seq": 2') + "\n",
        GOOD + "\n" + GOOD.replace(".000000Z", ".00000Z") + "\n",
        GOOD + "\n" + GOOD.replace("}", ',"detail":"' + "x" * 70_000 + '"}') + "\n",
        GOOD + "\n" + GOOD.replace("open", "\xff") + "\n",
    ],
)
def test_many_records_are_malformed_if_one_is(lines):
    with pytest.raises(Malformed):
        parse_lines(lines.encode("latin-1"))


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_many_records_are_what_each_alone_is(texts):
    bodies = [encode(Record(n, rfc3339(NOON), "m", "copy", detail=text)) for n, text in enumerate(texts)]
    records, parts = parse_lines(b"".join(body + b"\n" for body in bodies))
    assert (list(zip(records, parts, strict=True))) == [parse(body) for body in bodies]
