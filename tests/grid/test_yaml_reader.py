"""The YAML door: YAML 1.2 comes through, everything else is one sentence with file and line, at once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from waiting import processor_seconds

from harness.errors import HarnessError
from harness.grid import yaml_reader
from harness.grid.yaml_reader import parse, read_document

HOSTILE = {
    "tab": ("a: b\nc:\n  d: 1\n\te: 2\n", "e.yaml, line 4: expected spaces for indentation, got a tab"),
    "duplicate key": ("a: 1\nb: 2\na: 3", r"line 3: the key 'a' is written twice \(first on line 1\)"),
    "alias": ("a: &x [1]\nb: *x", r"line 1: anchors \(&\) and aliases"),
    "alias alone": ("b: *x", r"line 1: anchors \(&\) and aliases"),
    "bomb": ("a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(40)), "line 1: anchors"),
    "tag": ("a: 1\nb: !!python/object:os.system x", r"line 2: tags \(!\) are not used"),
    "second document": ("a: 1\n---\nb: 2", "line 2: a second document begins"),
    "unclosed": ("a: [1,\n b: 2", "line 2: while parsing a flow sequence"),
    "empty": ("", "the file is empty"),
    "comment": ("# nothing\n", "the file is empty"),
    "null character": ("a: 1\nb: \x00", "line 2: a character that YAML does not allow"),
    "brackets": ("[" * 60_000, "line 1: nested more than 8 levels deep"),
    "braces": ("{" * 60_000, "line 1: expected a string as a key"),
    "dashes": ("- " * 30_000, "nested more than 8 levels deep"),
    "indentation": ("\n".join(" " * depth + "a:" for depth in range(300)), "line 10: nested more than 8 levels"),
    "list as key": ("[a]: b", "line 1: expected a string as a key"),
    "colons": ("a: b: c", "line 1: mapping values are not allowed here"),
    "future YAML": ("%YAML 9.9\n---\na: 1", "line 1: "),
}


@pytest.fixture(scope="module")
def honest():
    """Processor seconds for 64 KB of an honest file: four times those for 16 KB."""
    text = "".join(f"key_{line}: [relu, 0.05, 1e-3, off]\n" for line in range(500))
    assert 15_000 < len(text) < 17_000
    return 4 * processor_seconds(lambda: parse(text, "e.yaml"), tries=3)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_one_sentence_with_its_line_and_costs_little_more_than_honest_text(name, honest):
    text, sentence = HOSTILE[name]

    def refused():
        with pytest.raises(HarnessError, match=sentence) as caught:
            parse(text, "e.yaml")
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("e.yaml")

    # the largest takes as long as honest text of its size; five times that is what no quadratic reading comes near
    assert processor_seconds(refused, 5 * honest) < 5 * honest


def test_a_megabyte_of_noise_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    noise = random.Random(0).randbytes(1_000_000)
    (tmp_path / "e.yaml").write_bytes(noise)
    monkeypatch.setattr(yaml_reader, "parse", lambda *arguments: pytest.fail("it was parsed"))
    with pytest.raises(HarnessError, match=r"e.yaml: expected at most 64 KB, got a larger file"):
        read_document(tmp_path / "e.yaml")


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path):
    (tmp_path / "e.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(HarnessError, match=r"e.yaml, line 2: not UTF-8 text \(byte 0xff\)"):
        read_document(tmp_path / "e.yaml")


def test_a_folder_or_nothing_is_not_an_experiment(tmp_path):
    with pytest.raises(HarnessError, match="cannot be read: Is a directory"):
        read_document(tmp_path)
    with pytest.raises(HarnessError, match="cannot be read: No such file"):
        read_document(tmp_path / "e.yaml")


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-3", 0.001), ("1.e3", 1000.0), ("+.5", 0.5), ("12", 12), ("-3", -3), ("off", "off"), ("on", "on"),
        ("yes", "yes"), ("no", "no"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'1'", "1"), ('"on"', "on"), ("1_000", "1_000"), ("2020-01-01", "2020-01-01"), ("12:30", "12:30"),
        ("-.inf", float("-inf")), ("0x10", 16), ("0xfF", 255), ("0o10", 8), ("010", 10), ("0x", "0x"), ("0o8", "0o8"),
        ("0X10", "0X10"), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_scalars_are_what_yaml_1_2_says(scalar, value):
    found = parse(f"key: {scalar}", "e.yaml")["key"]
    assert (found, type(found)) == (value, type(value))


plain = st.one_of(
    st.integers(-(10**6), 10**6), st.booleans(), st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text("abcdefg :-'\"[]{}#&*!é\n", max_size=12),
)  # fmt: skip


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.text("abcxyz_", min_size=1, max_size=6), st.one_of(plain, st.lists(plain, max_size=4)), min_size=1
    )
)
def test_whatever_a_yaml_writer_writes_is_read_back(content):
    import io

    stream, writer = io.StringIO(), YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(content, stream)
    assert parse(stream.getvalue(), "e.yaml") == YAML(typ="safe", pure=True).load(stream.getvalue())


@settings(max_examples=400)
@given(st.text("ab1:- \n\t#[]{},&*!|>%@'\"\\?~\x00\u2028é", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        parse(text, "e.yaml")
    except HarnessError as error:
        assert str(error).startswith("e.yaml") and "\n" not in str(error)  # noqa: PT017, PT018


@pytest.mark.parametrize("scalar", ["0x10", "0xfF", "0o10", "010"])
def test_integers_of_other_bases_are_those_of_another_reader(scalar):
    assert parse(f"seeds: {scalar}", "e.yaml") == YAML(typ="safe", pure=True).load(f"seeds: {scalar}")
