"""Packed sequences: a row is a token, against a plain loop over the padded outputs and their mask."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import harness
from harness.errors import HarnessError
from harness.measures import mutual_information
from harness.watching.layer_reader import CHECKS

BATCH, LONGEST, UNITS = 40, 7, 5
LENGTHS = torch.randint(1, LONGEST + 1, (30, BATCH), generator=torch.Generator().manual_seed(3))
TOKENS = torch.randn(30, BATCH, LONGEST, 3, generator=torch.Generator().manual_seed(4))
CLASSES = (torch.arange(30 * BATCH) % 3).reshape(30, BATCH)
MASK = torch.arange(LONGEST) < LENGTHS[..., None]


class Tagger(nn.Module):
    """Packs its tokens, runs a recurrent layer on them, and pads them again."""

    def __init__(self, kind=nn.LSTM, rectified=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = kind(3, UNITS, **options), nn.Linear(UNITS, 2)
        self.batch_first, self.rectified = options.get("batch_first", False), rectified
        if rectified:
            self.relu = nn.ReLU()

    def forward(self, tokens, lengths):
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        packed = pack_padded_sequence(tokens, lengths, batch_first=self.batch_first, enforce_sorted=False)
        states, _ = self.lstm(packed)
        if self.rectified:
            states = PackedSequence(self.relu(states.data - 0.1), *states[1:])
        return self.head(pad_packed_sequence(states, batch_first=True, total_length=LONGEST)[0])

    def states(self, tokens, lengths):
        """Padded states of the recurrent layer, by a loop over the sequences."""
        outputs = torch.zeros(len(tokens), LONGEST, UNITS)
        for index, length in enumerate(lengths.tolist()):
            sequence = tokens[index : index + 1, :length]
            states = self.lstm(sequence if self.batch_first else sequence.transpose(0, 1))[0]
            outputs[index, :length] = states.reshape(length, UNITS)
        return F.relu(outputs - 0.1) if self.rectified else outputs


def train(model, watched=None, steps=30, **options):
    """Train for some steps, with the layer watched or not; return the monitor and the losses."""
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []

    def loop():
        for tokens, lengths in zip(TOKENS[:steps], LENGTHS[:steps], strict=True):
            optimizer.zero_grad()
            loss = model(tokens, lengths).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

    if watched is None:
        loop()
        return None, torch.stack(losses)
    with harness.watch(model, watched, **options) as monitor:
        loop()
    return monitor, torch.stack(losses)


KINDS = [
    pytest.param(nn.LSTM, {"batch_first": True}, id="lstm"),
    pytest.param(nn.LSTM, {}, id="lstm, positions first"),
    pytest.param(nn.GRU, {"batch_first": True}, id="gru"),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_rows_of_a_step_are_the_tokens_that_are_no_padding(kind, options):
    model = Tagger(kind, **options)
    with harness.watch(model, "lstm") as monitor, torch.no_grad():
        for tokens, lengths in zip(TOKENS, LENGTHS, strict=True):
            model(tokens, lengths)
    history = monitor.history()
    for step, (tokens, lengths, mask) in enumerate(zip(TOKENS, LENGTHS, MASK, strict=True), start=1):
        states = model.states(tokens, lengths)[mask].detach().numpy()
        rows = history[history.step == step]
        # the fused kernel of a packed batch rounds differently from a sequence alone
        assert rows["mean"].to_numpy() == pytest.approx(states.mean(0), abs=1e-6)
        assert rows["sd"].to_numpy() == pytest.approx(states.std(0), abs=1e-6)
    assert monitor.units().rows.unique().tolist() == [int(MASK.sum())]


def test_the_firing_frequencies_are_those_of_the_padded_output_under_its_mask():
    model = Tagger(rectified=True, batch_first=True)
    with harness.watch(model, "lstm") as monitor, torch.no_grad():
        for tokens, lengths in zip(TOKENS, LENGTHS, strict=True):
            model(tokens, lengths)
    states = torch.stack([model.states(*batch) for batch in zip(TOKENS, LENGTHS, strict=True)])
    fires = (states > 0)[MASK].float().mean(0)
    assert (states > 0).float().mean((0, 1, 2)).min() < 0.9 * fires.min()  # with the padding they would be lower
    assert monitor.units().activation_frequency.to_numpy() == pytest.approx(fires.numpy())
    diagnosis = harness.diagnose_model(model, list(zip(TOKENS, LENGTHS, strict=True)), "lstm")
    assert diagnosis.activation == "relu"
    assert diagnosis.rows == int(MASK.sum())
    assert [unit.activation_frequency for unit in diagnosis.units] == pytest.approx(fires.tolist())


def test_training_is_the_same_bit_for_bit_with_a_monitor():
    plain, watched = Tagger(batch_first=True), Tagger(batch_first=True)
    _, losses = train(plain)
    monitor, losses_watched = train(watched, "lstm")
    assert torch.equal(losses, losses_watched)
    for first, second in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(first, second)
    assert monitor.step > min(CHECKS - {1})  # taps have checked the site
    assert "forward" not in vars(watched.lstm)


def test_a_label_of_a_sequence_is_that_of_each_of_its_tokens():
    model = Tagger(batch_first=True)
    batches = [*zip(TOKENS, LENGTHS, CLASSES, strict=True)]
    current = {}
    with harness.watch(model, "lstm", labels=lambda: current["labels"]) as monitor, torch.no_grad():
        for tokens, lengths, classes in batches:
            current["labels"] = classes
            model(tokens, lengths)
    states = torch.cat(
        [model.states(tokens, lengths)[mask] for (tokens, lengths, _), mask in zip(batches, MASK, strict=True)]
    )
    labels = torch.cat(
        [classes[:, None].expand(-1, LONGEST)[mask] for classes, mask in zip(CLASSES, MASK, strict=True)]
    )
    expected = mutual_information(states.detach(), labels)
    diagnosis = harness.diagnose_model(model, batches, "lstm")
    # values of a continuous unit are ranked: rounding moves few of the neighbours that are counted
    assert [unit.mutual_information for unit in diagnosis.units] == pytest.approx(expected.tolist(), abs=2e-3)
    window = monitor.diagnosis()
    assert window.rows >= 1000
    assert all(unit.mutual_information is not None for unit in window.units)
    given = harness.diagnose_model(model, [batch[:2] for batch in batches], "lstm", labels=CLASSES.flatten())
    assert [unit.mutual_information for unit in given.units] == [unit.mutual_information for unit in diagnosis.units]


def test_labels_of_another_length_are_refused():
    model, batches = Tagger(batch_first=True), [*zip(TOKENS, LENGTHS, strict=True)]
    with pytest.raises(HarnessError, match=r"labels: expected one value per sample, got \[7\] for 1200 samples"):
        harness.diagnose_model(model, batches, "lstm", labels=torch.arange(7))


@pytest.mark.parametrize("axis", [None, 2, 1, -1])
def test_the_note_on_the_axis_says_that_padding_is_left_out(axis):
    model, batches = Tagger(batch_first=True), [*zip(TOKENS, LENGTHS, strict=True)]
    diagnosis = harness.diagnose_model(model, batches, "lstm", unit_axis=axis)
    (note,) = [finding for finding in diagnosis.findings if finding.rule == "unit_axis"]
    assert "activations of shape [packed token, 5]; padding is left out" in note.evidence
    assert len(diagnosis.units) == UNITS


def test_a_model_that_is_given_packed_sequences_needs_no_other_call():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, UNITS, bidirectional=True)

        def forward(self, packed):
            return self.lstm(packed)[0]

    model = Reader()
    packed = [
        pack_padded_sequence(*batch, batch_first=True, enforce_sorted=False)
        for batch in zip(TOKENS, LENGTHS, strict=True)
    ]
    rows = int(MASK.sum())
    for batches in (packed, [*zip(packed, CLASSES, strict=True)]):
        diagnosis = harness.diagnose_model(model, batches, "lstm")
        assert (diagnosis.rows, len(diagnosis.units)) == (rows, 2 * UNITS)
    assert diagnosis.units[0].mutual_information is not None
    assert harness.diagnose_model(model, packed[0], "lstm").rows == int(MASK[0].sum())
    assert [(layer.name, layer.units, layer.shape) for layer in harness.layers(model, packed)] == [("lstm", 10, (10,))]
    with harness.watch(model, "lstm") as monitor:
        for batch in packed + packed:
            model(batch).data.sum().backward()
    assert monitor.units().rows.tolist() == [2 * rows] * 2 * UNITS


def test_the_gradient_of_a_term_at_a_packed_layer_is_that_of_autograd():
    model = Tagger(batch_first=True)
    with harness.watch(model, "lstm", gradients=True, unit_axis=2) as monitor:
        for tokens, lengths in zip(TOKENS[:4], LENGTHS[:4], strict=True):
            loss = model(tokens, lengths).square().sum()
            monitor.terms(main=loss)
    states = model.states(TOKENS[3], LENGTHS[3]).detach().requires_grad_()
    gradient = torch.autograd.grad((model.head(states)[MASK[3]]).square().sum(), states)[0]
    history = monitor.history()
    assert history[history.step == 4]["gradient/main"].to_numpy() == pytest.approx(
        gradient.flatten(0, 1).norm(dim=0).numpy(), rel=1e-5
    )


def test_plain_tensors_of_an_lstm_are_read_without_its_hidden_state():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, UNITS, batch_first=True), nn.Linear(UNITS, 2)

        def forward(self, tokens):
            return self.head(self.lstm(tokens)[0])

    model = Plain()
    tokens = TOKENS.flatten(0, 1)
    states = model.lstm(tokens)[0].detach().flatten(0, 1)
    diagnosis = harness.diagnose_model(model, tokens, "lstm")
    assert [unit.mean for unit in diagnosis.units] == pytest.approx(states.mean(0).tolist(), abs=1e-5)
    assert diagnosis.rows == len(states)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("every", [1, 2])
def test_each_token_of_the_window_has_the_label_of_its_own_sequence(every, rectified):
    model, current = Tagger(rectified=rectified, batch_first=True), {}
    steps = 6  # fewer rows than a window
    with harness.watch(model, "lstm", every, labels=lambda: current["labels"]) as monitor, torch.no_grad():
        for tokens, lengths, classes in zip(TOKENS[:steps], LENGTHS[:steps], CLASSES[:steps], strict=True):
            current["labels"] = classes
            model(tokens, lengths)
    rows = monitor._recorder.windows["lstm"].window.rows()
    observed = slice(0, steps, every)
    states = torch.cat([model.states(*batch) for batch in zip(TOKENS[observed], LENGTHS[observed], strict=True)])
    mask = MASK[observed].flatten(0, 1)
    labels = CLASSES[observed].flatten()[:, None].expand(-1, LONGEST)[mask]
    samples = torch.arange(len(mask))[:, None].expand(-1, LONGEST)[mask]
    distance = torch.cdist(rows["values"], states[mask].detach())
    nearest = distance.argmin(1)
    assert distance.min(1).values.max() < 1e-3
    alone = (distance < 1e-3).sum(1) == 1  # a rectified row may be zero, as others are
    assert alone.float().mean() > 0.7
    assert torch.equal(rows["labels"][alone], labels[nearest][alone])
    assert len(rows["sample"].unique()) == len(mask)
    same = rows["sample"][alone][:, None] == rows["sample"][alone]
    assert torch.equal(same, samples[nearest][alone][:, None] == samples[nearest][alone])
    assert "forward" not in vars(model.lstm)


def test_rows_of_all_calls_of_a_packed_layer_count():
    class Twice(Tagger):
        def forward(self, tokens, lengths):
            return super().forward(tokens, lengths) + super().forward(tokens[:10], lengths[:10]).sum()

    model = Twice(batch_first=True)
    with harness.watch(model, "lstm", labels=lambda: CLASSES[0]) as monitor, torch.no_grad():
        for tokens, lengths in zip(TOKENS, LENGTHS, strict=True):
            model(tokens, lengths)
    second = int(MASK[1:, :10].sum())  # the second call is known from the second step on
    assert monitor.units().rows.unique().tolist() == [int(MASK.sum()) + second]
    window = monitor._recorder.windows["lstm"].window.rows()
    assert len(window["labels"]) == len(window["values"])


def test_a_compiled_model_that_is_given_packed_sequences_is_read_in_a_second_pass():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, UNITS)

        def forward(self, packed):
            return self.lstm(packed)[0]

    compiled = torch.compile(Reader(), backend="eager")
    packed = pack_padded_sequence(TOKENS[0], LENGTHS[0], batch_first=True, enforce_sorted=False)
    with harness.watch(compiled, "lstm") as monitor:
        for _ in range(3):
            compiled(packed).data.sum().backward()
    assert monitor.units().rows.tolist() == [3 * int(MASK[0].sum())] * UNITS
