"""A prescription finds planted cures, proves them on seeds that screening never saw, and leaves healthy models alone."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from dead_case import DEAD_FILE
from torch import nn

import harness
from harness.data import split_of
from harness.errors import HarnessError
from harness.prescription.goal import goal_of, seconds_of
from harness.prescription.indications import Signs, candidates, contraindication, penalty_weights
from harness.prescription.prescription import PrescriptionInterrupted
from harness.prescription.procedure import Search, prescribe
from harness.prescription.proof import FRESH
from harness.prescription.screening import ROUNDS, Score, ranked
from harness.results.records import MemberRecord

pytestmark = pytest.mark.many


def rows():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 8, generator=generator)
    return torch.randn(640, 3, generator=generator) @ mixing


class Autoencoder(nn.Module):
    """Eight features through three rectified units; a bias far below zero keeps every unit silent."""

    def __init__(self, bias: float = 0.0):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)
        nn.init.constant_(self.encoder.bias, bias)

    def forward(self, batch):
        return self.decoder(F.relu(self.encoder(batch)))


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def case(bias, **fields):
    return harness.Case(
        lambda: Autoencoder(bias), rows, losses, "encoder", train={"epochs": 3, "learning_rate": 0.01}, **fields
    )


@pytest.fixture(scope="module")
def dead():
    return prescribe(case(-40.0, name="dead"), budget="10m", seeds=12)


def test_a_planted_cure_is_proved(dead):
    """Biases at -40 silence every unit: zero biases or a normalization bring them back, as they must."""
    assert dead.wrong
    assert dead.best is not None
    assert {"bias_init": "zero", "batchnorm": "on"}.items() & dead.best.remedy.items()
    assert (dead.best.word, dead.best.failed_before, dead.best.failed_after, dead.best.seeds) == ("works", 12, 0, 12)
    # twelve discordant pairs, all one way: the mid-p is half the two-sided binomial tail, 2 * 0.5 ** 12 / 2
    assert dead.best.p == pytest.approx(0.5**12)


def test_the_proof_is_on_seeds_that_screening_never_saw():
    assert max(ROUNDS) <= FRESH


def test_the_repaired_model_varies_with_the_input_and_the_code_names_its_layer(dead):
    model = dead.best.model(seed=3).eval()
    assert model(rows()).std(0).min() > 0
    own = Autoencoder(-40.0)
    treated = dead.best.apply(own).eval()
    assert treated(rows()).std(0).min() > 0
    assert {id(parameter) for parameter in own.parameters()} <= {id(parameter) for parameter in treated.parameters()}
    assert "encoder" in dead.best.code or "bias" in dead.best.code


def test_a_healthy_model_gets_nothing():
    healthy = prescribe(
        harness.Case(lambda: Autoencoder(0.5), rows, losses, "encoder", train={"epochs": 20, "learning_rate": 0.01}),
        budget="10m",
    )
    assert (healthy.wrong, healthy.remedies, healthy.tried) == (False, (), ())
    assert healthy.headline.startswith("Nothing is wrong")
    assert not [note for note in healthy.notes if "seeds fit the budget" in note]


def test_a_healthy_model_without_time_for_eight_seeds_is_told_so():
    case = harness.Case(lambda: Autoencoder(0.5), rows, losses, "encoder", train={"epochs": 20, "learning_rate": 0.01})
    (note,) = prescribe(case, budget="0.001s").notes
    assert note.startswith("only 2 seeds fit the budget, not 8")


def test_what_cannot_help_is_left_out_with_its_reason(dead):
    reasons = {row["name"]: row["reason"] for row in dead.excluded}
    assert all(reasons.values())
    assert contraindication({"activation": "leaky_relu"}, Signs(activation="tanh"))
    assert contraindication({"activation": "leaky_relu"}, Signs(activation="relu")) is None
    assert contraindication({"penalty": "none"}, Signs(has_penalty=False))
    assert contraindication({"penalty": "none"}, Signs(has_penalty=True)) is None


def test_a_prescription_can_be_printed_stored_and_written(dead, tmp_path):
    document = json.loads(json.dumps(dead.to_dict()))
    names = {"remedy", "seeds", "failed_before", "failed_after", "collapsed_before", "collapsed_after", "low", "high"}
    assert names | {"p", "p_adjusted", "r2_before", "r2_after", "word", "code"} <= set(document["remedies"][0])
    assert document["schema_version"] == 1
    page = dead.report(tmp_path / "prescription.html").read_text()
    assert dead.best.name in page
    assert "<script" not in page
    assert len(repr(dead).splitlines()) == 1
    assert dead.best.code.splitlines()[0] in str(dead)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"budget": "soon"}, "budget: expected a time such as 90s, 5m or 1h, got 'soon'"),
        ({"budget": 0}, "budget: expected a time"),
        ({"goal": "perfect"}, "goal: expected live, usable or a bound such as r2>0.4, got 'perfect'"),
        ({"seeds": 1}, "seeds: expected at least 2, got 1"),
        ({"try_only": ["leaky-relu"]}, "did you mean 'leaky_relu'"),
        ({"try_only": ["activation=swish"]}, "activation"),
    ],
)
def test_a_wrong_request_is_an_error(arguments, match):
    with pytest.raises(HarnessError, match=match):
        prescribe(case(0.0), **arguments)


def test_goals_and_budgets_are_read():
    record = MemberRecord("k", "v", {}, 0, verdict="healthy", r2=0.5)
    assert goal_of("r2>0.4")(record)
    assert not goal_of("r2>0.6")(record)
    assert goal_of("usable")(record)
    assert not goal_of("live")(MemberRecord("k", "v", {}, 0, verdict="full_collapse"))
    assert seconds_of("1.5m") == 90


def test_fewer_failures_come_before_more_r2():
    scores = {"a=1": Score(0.5, 0.9), "b=1": Score(0.0, 0.1), "c=1": Score(0.0, 0.3)}
    assert ranked([{"a": 1}, {"b": 1}, {"c": 1}], scores) == [{"c": 1}, {"b": 1}, {"a": 1}]


@pytest.mark.long
def test_the_command_prints_one_document_and_exits_with_1(tmp_path):
    (tmp_path / "mine.py").write_text(DEAD_FILE.replace("'epochs': 10", "'epochs': 2"))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "prescribe", "mine.py", "--json"]
    process = subprocess.run(
        [*command, "--budget", "10m", "--seeds", "10", "--try", "zero_bias,batchnorm", "--workers", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 1, process.stderr
    assert {
        row["remedy"].get("bias_init") or row["remedy"].get("batchnorm")
        for row in json.loads(process.stdout)["remedies"]
    }
    assert "examining" in process.stderr
    # one parent run, a summary run for the model as it is and one for each remedy, and the members of the proof
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prescribe mine")
    kinds = [run.data.tags["harness.kind"] for run in client.search_runs([experiment.experiment_id], max_results=1000)]
    assert kinds.count("experiment") == 1
    assert kinds.count("summary") == 1 + len(json.loads(process.stdout)["remedies"])
    assert kinds.count("member") == 10 * kinds.count("summary")


def test_a_case_is_examined_as_it_is_given_whatever_its_file_says(tmp_path):
    """A loaded case with another model is that case, and not what its file holds."""
    (tmp_path / "mine.py").write_text("raise RuntimeError('read again')\n")
    given = replace(
        case(0.5),
        source=tmp_path / "mine.py",
        train={"epochs": 20, "learning_rate": 0.01},
        model=lambda: Autoencoder(0.5),
    )
    assert not prescribe(given, budget="10m").wrong


@pytest.mark.long
def test_a_stopped_search_says_what_is_there_and_goes_on_from_it(tmp_path):
    """Stopped before the proof; the next call trains only what is missing, and has the numbers of one that never stopped."""
    (tmp_path / "mine.py").write_text(DEAD_FILE)
    options = {"budget": "10m", "seeds": 8, "try_only": ["zero_bias", "batchnorm"], "workers": 0}

    def stop_at_proof(text):
        if text.startswith("proof"):
            raise KeyboardInterrupt

    with pytest.raises(PrescriptionInterrupted, match="Stopped before the proof: 8 of 8 seeds") as stopped:
        prescribe(tmp_path / "mine.py", **options, says=stop_at_proof, root=tmp_path)
    prescription = stopped.value.prescription
    assert prescription.interrupted
    assert all(row["failed_share"] is not None for row in prescription.tried)
    assert "nearest in the screening" in prescription.headline

    whole = prescribe(tmp_path / "mine.py", **options, root=tmp_path / "new")
    again = prescribe(tmp_path / "mine.py", **options, root=tmp_path)
    assert any("members were trained before" in note for note in again.notes)
    first, second = (
        [{**remedy.to_dict(), "seconds_before": 0, "seconds_after": 0} for remedy in each.remedies]
        for each in (whole, again)
    )
    assert first == second
    assert len(list((tmp_path / "mlruns" / "results").rglob("*.parquet"))) > 0


def test_the_best_remedy_is_a_diff_of_the_file_and_lists_its_side_effects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(DEAD_FILE)
    prescription = prescribe("mine.py", budget="10m", seeds=8, try_only=["batchnorm"], workers=0)
    best = prescription.best
    assert best.code.startswith("--- mine.py\n+++ mine.py\n")
    assert best.is_diff
    assert "running_mean" in " ".join(best.new_state)
    assert not best.state_dict_loads
    assert best.live_before == 0 < best.live_after
    assert best.parameters_before == best.parameters_after == 8 * 4 + 4 + 4 * 8 + 8
    page = prescription.report(tmp_path / "prescription.html").read_text()
    assert "<th>before</th>" in page
    assert "<th>after</th>" in page


def test_a_case_with_its_own_loop_is_prescribed(tmp_path):
    """The author's function trains; changes of the penalty and of the rate are refused with the reason."""
    text = DEAD_FILE.replace(
        "case = harness.Case(Model, data, losses, 'encoder', train={'epochs': 10, 'learning_rate': 0.01})",
        "def fit(model, seed):\n"
        "    optimizer = torch.optim.Adam(model.parameters(), 0.01)\n"
        "    rows = data()\n"
        "    for _ in range(40):\n"
        "        optimizer.zero_grad()\n"
        "        F.mse_loss(model(rows), rows).backward()\n"
        "        optimizer.step()\n"
        "case = harness.Case(Model, data, bottleneck='encoder', fit=fit)",
    )
    (tmp_path / "mine.py").write_text(text)
    prescription = prescribe(
        tmp_path / "mine.py", "10m", seeds=8, try_only=["zero_bias", "learning_rate=0.1"], workers=0, root=tmp_path
    )
    assert prescription.best.remedy == {"bias_init": "zero"}
    assert prescription.excluded[0]["reason"].startswith("learning_rate: Case.fit trains by itself")


def fitted_case(failing):
    """A healthy model, trained by a function that ends in an error on some seeds."""

    def fit(model, seed):
        if seed in failing:
            raise OSError("no space left on device")
        optimizer, batch = torch.optim.Adam(model.parameters(), 0.01), rows()
        for _ in range(60):
            optimizer.zero_grad()
            F.mse_loss(model(batch), batch).backward()
            optimizer.step()

    return harness.Case(lambda: Autoencoder(0.5), rows, bottleneck="encoder", fit=fit, name="own_loop")


def test_a_seed_whose_training_ends_in_an_error_is_lost_and_does_not_fail():
    prescription = prescribe(fitted_case(failing={1}), budget="10m")
    assert not prescription.wrong
    assert prescription.headline.startswith("Nothing is wrong with own_loop: 0 of 7 seeds fail")
    assert prescription.untreated == {"healthy": 7, "lost": 1}
    assert any("1 of 8 seeds" in note and "no space left on device" in note for note in prescription.notes)
    whole = prescribe(fitted_case(failing=()), budget="10m")
    assert (whole.untreated, whole.notes) == ({"healthy": 8}, prescription.notes[:1])


def test_training_that_ends_in_an_error_on_every_seed_is_an_error():
    with pytest.raises(HarnessError, match=r"own_loop: training failed on every seed: .*no space left on device"):
        prescribe(fitted_case(failing=range(99)), budget="10m")


@pytest.mark.parametrize(("units", "tried"), [(4, False), (12, True)])
def test_remedies_of_dictionaries_are_tried_on_codes_that_are_wider_than_the_rows(units, tried):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(8, units), nn.Linear(units, 8)

        def forward(self, batch):
            return self.decoder(F.relu(self.encoder(batch)))

    own = harness.Case(Wide, rows, losses, "encoder", train={"epochs": 3})
    signs = Signs(activation="relu", unit_verdicts=frozenset({"dead"}))
    chosen, excluded = candidates(own, split_of(own), signs)
    names = {name for candidate in chosen for name in candidate.cell}
    assert names.isdisjoint({"auxk", "neuron_resampling"}) != tried
    reasons = " ".join(candidate.reason for candidate in excluded)
    assert ("made for dictionaries: the code has 4 units, a row has 8 numbers" in reasons) != tried
    assert "codebook_restart: the model has no codebook" in reasons


def test_no_learning_rate_is_tried_where_the_scheduler_sets_the_rates_itself():
    """OneCycleLR rises to its own `max_lr` whatever the optimizer's rate; ExponentialLR scales the rate that it is given."""
    signs = Signs(verdicts=("full_collapse",), diverged=True, rate=0.01)

    def rates(scheduler):
        model = case(-40.0, name="scheduled", scheduler=scheduler)
        tried, excluded = candidates(model, split_of(model), signs)
        return [[each for each in group if "learning_rate" in each.cell] for group in (tried, excluded)]

    tried, excluded = rates(lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps))
    assert not tried
    assert {each.reason for each in excluded} == {"the case's scheduler sets the learning rates itself"}
    tried, excluded = rates(lambda optimizer, steps: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99))
    assert tried
    assert not excluded


class Variational(nn.Module):
    """A Gaussian latent of three units, with the log-variances as the third output."""

    def __init__(self):
        super().__init__()
        self.mean, self.spread, self.decoder = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, batch):
        mean, log_variance = self.mean(batch), self.spread(batch)
        return self.decoder(mean), mean, log_variance


def weighted_divergence(model, batch, kl_weight, floor, scale):
    made, mean, log_variance = model(batch)
    divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    return {"reconstruction": scale * F.mse_loss(made, batch), "kl": kl_weight * divergence + floor}


def test_lower_weights_are_tried_of_the_number_that_the_gradient_of_the_penalty_is_proportional_to():
    numbers = {"kl_weight": 40.0, "floor": 2.0, "scale": 3.0}
    own = harness.Case(
        Variational, rows, weighted_divergence, "mean", posterior="out:2", numbers=numbers, penalty_weight=None
    )
    split = split_of(own)
    assert penalty_weights(own, split, ["reconstruction", "kl"]) == {"kl_weight": 40.0}
    assert penalty_weights(replace(own, penalty_weight="scale"), split, []) == {
        "scale": 3.0
    }  # a declared one is not looked for
    hard_coded = replace(own, losses=lambda model, batch: weighted_divergence(model, batch, 40.0, 0.0, 1.0), numbers={})
    assert penalty_weights(hard_coded, split, ["reconstruction", "kl"]) == {}  # declared to weigh itself
    assert penalty_weights(replace(hard_coded, penalty_weight="beta"), split, ["reconstruction", "kl"]) == {"beta": 1.0}
    assert penalty_weights(replace(hard_coded, penalty_weight="beta"), split, ["reconstruction"]) == {}  # no penalty
    signs = Signs(has_posterior=True, has_penalty=True, weights={"kl_weight": 40.0}, verdicts=("full_collapse",))
    tried, excluded = candidates(own, split, signs)
    assert "without the KL term the latent has no prior" in next(
        candidate.reason for candidate in excluded if candidate.cell == {"penalty": "none"}
    )
    tried = [dict(candidate.cell) for candidate in tried]
    assert [cell for cell in tried if "kl_weight" in cell] == [
        {"kl_weight": 4.0},
        {"kl_weight": 0.4},
        {"kl_weight": 0.04},
    ]
    assert {"free_bits": 0.2} not in tried  # the floor beside the weight makes the term no multiple of the divergence


def test_a_case_with_targets_gets_candidates():
    def supervised(model, batch, target):
        return {"errors": F.cross_entropy(model(batch), target)}

    own = harness.Case(
        lambda: Autoencoder(-40.0), lambda: (rows(), rows()[:, :8].argmax(1)), supervised, "encoder", objective="errors"
    )
    signs = Signs(activation="relu", verdicts=("full_collapse",), unit_verdicts=frozenset({"dead"}))
    tried = [dict(candidate.cell) for candidate in candidates(own, split_of(own), signs)[0]]
    assert {"bias_init": "zero"} in tried
    assert {"batchnorm": "on"} in tried


class HalfBlind(Autoencoder):
    """Reconstructs `seen` of eight features; in about half of its initializations every unit is silent."""

    def __init__(self, seen: int):
        super().__init__(-40.0 if torch.rand(()) < 0.5 else 0.0)
        self.seen = seen

    def forward(self, batch):
        made = super().forward(batch)
        return torch.cat([made[:, : self.seen], torch.zeros_like(made[:, self.seen :])], 1)


@pytest.mark.parametrize(("seen", "poor"), [(2, True), (8, False)])
def test_seeds_that_are_all_poor_count_as_failed_where_only_some_collapse(seen, poor):
    """Two of eight features are at most about a quarter of the variance; PCA with four components has all of it."""
    own = replace(
        case(0.0, name="half blind"), model=lambda: HalfBlind(seen), train={"epochs": 20, "learning_rate": 0.01}
    )
    search = Search(own, "10m", None, "usable", 0, lambda text: None, None)
    search.examine()
    collapsed = sum(record.verdict == "full_collapse" for record in search.untreated)
    assert 0 < collapsed < len(search.untreated)
    failed = sum(not search.meets(record) for record in search.untreated)
    assert failed == (len(search.untreated) if poor else collapsed)
    assert ("half of that of PCA" in search.result().failed_if) == poor


@pytest.mark.parametrize(
    ("signs", "sites"),
    [
        ({"serious": frozenset({"wrong_axis"}), "target": 0.05, "activation": "relu"}, {"kl_sigmoid_bottleneck"}),
        ({"serious": frozenset({"no_gradient"}), "activation": "relu"}, {"l1"}),
        ({"serious": frozenset({"dead_at_birth"}), "target": 0.05, "activation": "relu"}, set()),
        ({"rules": frozenset({"collapse_optimum"}), "activation": "relu"}, set()),  # a note, as of every L1
    ],
)
def test_a_faulty_penalty_is_tried_as_one_of_the_code(signs, sites):
    own = case(0.0)
    tried = candidates(own, split_of(own), Signs(has_penalty=True, **signs))[0]
    corrected = [candidate.cell["penalty"] for candidate in tried if candidate.reason == "a faulty penalty, corrected"]
    assert set(corrected) == sites
