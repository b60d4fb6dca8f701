"""`harness init` writes files that run as they are; the bottleneck is the one that a reader of the model would name."""

import pytest
from commands import harness
from model_files import FILES, FUNCTIONAL, HEADER

import harness as package
from harness.scaffolding import scaffold
from harness.scaffolding.model_file import inspect_model_file


def written(tmp_path, text, **options):
    path = tmp_path / "model.py"
    path.write_text(text)
    return scaffold(path, **options)


@pytest.mark.parametrize("name", FILES)
def test_the_bottleneck_its_activation_and_the_rows_are_found(name, tmp_path):
    text, bottleneck, activation, shape, placeholder = FILES[name]
    files = written(tmp_path, text)
    (layer,) = [layer for layer in files.facts.layers if layer.name == bottleneck]
    assert (files.facts.bottleneck, layer.activation, list(files.facts.rows.shape[1:])) == (
        bottleneck,
        activation,
        shape,
    )
    assert files.placeholder is placeholder


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_planned_without_a_remedy_refused_and_without_a_rest(name, tmp_path):
    files = written(tmp_path, FILES[name][0])
    plan = package.plan(files.experiment)
    assert plan.not_applicable == []
    assert plan.members >= 2 * plan.seeds  # the model as it is and one remedy at least


def test_a_case_of_init_trains_and_reaches_a_verdict(tmp_path):
    case = package.load_case(str(written(tmp_path, FILES["vae"][0]).case))
    assert case.posterior == "logvar"
    terms = case.losses(case.model(), case.data())
    assert set(terms) == {"reconstruction", "kl"}
    audit = package.audit(case, during_training=False)
    assert "wrong_layer" not in audit.rules


def test_the_command_names_the_layers_and_what_to_do_next(tmp_path):
    (tmp_path / "model.py").write_text(FUNCTIONAL)
    done = harness("init", "model.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "* fc2  Linear, 4 values per row, activation relu" in done.stdout
    assert "replace data()" in done.stdout
    assert "harness run model.yaml" in done.stdout
    again = harness("init", "model.py", folder=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


TWO = FUNCTIONAL + FUNCTIONAL.removeprefix(HEADER).replace("Autoencoder", "Second")
UNBUILT = FUNCTIONAL.replace("def __init__(self):", "def __init__(self, width):")
UNGUESSED = FUNCTIONAL.replace("def forward(self, x):", "def forward(self, x):\n        assert x.shape[1] == 50")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO, "expected one model, found Autoencoder, Second; choose one with --model"),
        (UNBUILT, "give its arguments default values"),
        (UNGUESSED, "write a function `data"),
        (HEADER, "found none"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_file_without_one_clear_model_is_refused_with_what_to_write(text, message, tmp_path):
    with pytest.raises(package.HarnessError, match=message.replace("(", r"\(")):
        written(tmp_path, text)


def test_model_and_bottleneck_can_be_chosen(tmp_path):
    files = written(tmp_path, TWO, model="Second", bottleneck="fc1")
    assert (files.facts.factory, files.facts.bottleneck) == ("Second", "fc1")
    with pytest.raises(package.HarnessError, match="did you mean 'fc1'"):
        written(tmp_path, TWO, model="Second", bottleneck="fc11", force=True)
    with pytest.raises(package.HarnessError, match="did you mean 'Second'"):
        written(tmp_path, TWO, model="Sekond", force=True)


def test_a_name_that_cannot_be_imported_is_refused(tmp_path):
    (tmp_path / "my-model.py").write_text(FUNCTIONAL)
    with pytest.raises(package.HarnessError, match="can be imported"):
        scaffold(tmp_path / "my-model.py")
    with pytest.raises(package.HarnessError, match="expected a Python file"):
        scaffold(tmp_path / "nothing.py")


def test_a_function_that_is_no_model_by_its_name_is_not_called(tmp_path):
    """A training script has a main() without arguments: calling it would train, or read the command line."""
    marked = "\n\ndef {name}():\n    open('called', 'w').close()\n    return None\n"
    text = FUNCTIONAL + "".join(marked.format(name=name) for name in ("main", "train_model", "evaluate"))
    text = text.replace("open('called'", f"open({str(tmp_path / 'called')!r}")
    assert written(tmp_path, text)
    assert not (tmp_path / "called").exists()


def test_a_function_that_builds_the_model_is_called(tmp_path):
    (tmp_path / "model.py").write_text(UNBUILT + "\n\ndef make_model():\n    return Autoencoder(4)\n")
    assert inspect_model_file(tmp_path / "model.py").factory == "make_model"
