"""Reader of a watched layer's code, step by step."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.capture import BottleneckTap, ForwardPass, submodule
from harness.capture.noise import NoiseDraws
from harness.capture.packing import Packing, packing_of
from harness.watching.code_site import CodeSite, ModuleTensors, find_site, same_values
from harness.watching.forward_calls import ForwardCalls
from harness.watching.layer_names import form_of

MOST_CALLS = 64  # of a layer in one step that a tap follows
CHECKS = frozenset({1, *(16**power for power in range(1, 12))})  # observed steps at which a site is checked
MOST_FAILURES = (
    3  # of finding a site; afterwards taps read every step. The same number of steps without a call ends the taps
)


class LayerCode(NamedTuple):
    """Code of a layer in one step: one tensor per call of the layer, its packed sequences, and the activation in use."""

    codes: list[Tensor]
    activation: str
    packings: list[Packing | None]


class LayerReader:
    """Reads the code of one layer in the observed steps.

    A tap follows the code through the first observed steps and finds the activation in use. If the code is the input or
    output of a module, or the layer's output after its activation, a hook at that site reads it from then on, which costs
    some microseconds. Taps check the site at observed steps 2, 17, 257, ...; if it gives other values, taps go on reading.

    Args:
        model: the model that contains the layer.
        name: dotted name of the layer.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        self.model, self.name, self.module = model, name, submodule(model, name)
        self.site: CodeSite | None = None
        self.steps = self.failures = self.uncalled = 0
        self.calls = 1
        self.recording = False
        self.returned = ""  # what the layer returned, where that is no rows of units
        self._codes: list[Tensor] = []
        self._packings: list[Packing | None] = []
        self._packed = False  # the layer returns packed sequences
        self._passes: list[ForwardPass] = []
        self._tapped = self._called_times = 0
        self._taps: list[BottleneckTap] = []
        self._noise: NoiseDraws | None = None
        self.noise = False  # True once the model drew Gaussian noise of the output's shape behind the layer
        self._record: ModuleTensors | None = None
        self._calls: ForwardCalls | None = None
        self._presence: ForwardCalls | None = None
        self._form: ForwardCalls | None = None
        self._layout: ForwardCalls | None = None
        self._attached = False

    def attach(self) -> None:
        """Read the calls of the site, if it is known."""
        self._attached = True
        self._read_site()

    def start(self) -> bool:
        """Begin to read a step; return True if taps follow it, and `stop` and `finish` have to end it."""
        self._codes, self._packings = [], []
        self.recording = True
        if self.uncalled >= MOST_FAILURES:
            return False
        if self.site is None or self.steps in CHECKS:
            if self.site is None and self.failures < MOST_FAILURES:
                self._record = ModuleTensors(self.model)
                self._form = ForwardCalls(self.module, after=self._note_form)
            self._noise = NoiseDraws(self.module)
            self._noise.__enter__()
            for call in range(self.calls):
                # the hooks of this call are running already, so the tap takes all calls up to `finish` as one pass
                tap = BottleneckTap(self.model, self.name, everywhere=True, call=call)
                tap.__enter__()
                self._taps.append(tap)
        return bool(self._taps)

    def take(self) -> LayerCode | None:
        """End a step that no taps have followed, and return the layer's code in it; None if it has no rows of units."""
        self.recording = False
        self.steps += 1
        codes, self._codes = self._codes, []
        packings, self._packings = self._packings, []
        return None if self.site is None else _layer_code(codes, self.site.activation, packings)

    def stop(self) -> None:
        """End the forward pass of a step. Readers are stopped in the reverse order of their start."""
        self.recording = False
        taps, self._taps = self._taps, []
        for tap in reversed(taps):
            tap.__exit__(None, None, None)
        if self._noise is not None:
            self._noise.__exit__(None, None, None)
            self.noise |= self._noise.drawn
            self._noise = None
        self._tapped = len(taps)
        if self._record is not None:
            self._record.close()
        if self._form is not None:
            self._form.remove()
            self._form = None
        self._called_times = max((tap.module_calls for tap in taps), default=0)
        self.calls = min(MOST_CALLS, max(self.calls, self._called_times))
        self._passes = [tap.passes[-1] for tap in taps if tap.passes and tap.passes[-1].code is not None]

    def finish(self) -> LayerCode | None:
        """Return the layer's code in the step that was stopped; None if it has no rows of units."""
        if not self._tapped:
            return self.take()
        passes, record, tapped, taken = self._passes, self._record, self._tapped, self._codes
        self._passes, self._record, self._tapped, self._codes = [], None, 0, []
        self.steps += 1
        codes = [forward.code.detach().clone() for forward in passes if forward.code is not None]
        if self.site is not None:
            if len(codes) != len(taken) or not all(map(same_values, taken, codes)):
                self._forget_site()
                self.failures += 1
        elif not codes:
            self.uncalled += 1
            if self.uncalled == MOST_FAILURES and self._attached:
                self._presence = ForwardCalls(self.module, after=self._called)
        elif record is not None and self._called_times <= tapped:
            self.site = find_site(self.module, passes, record)
            self.failures += self.site is None
            self._packed = any(forward.packing is not None for forward in passes)
            if self._attached:
                self._read_site()
        packings = [forward.packing for forward in passes]
        return _layer_code(codes, passes[0].activation, packings) if codes else None

    def detach(self) -> None:
        """Remove all hooks."""
        self.stop()
        self._record = None
        self.pause()

    def pause(self) -> None:
        """Read no calls; what was read stays."""
        for calls in (self._presence, self._calls, self._layout):
            if calls is not None:
                calls.remove()
        self._presence = self._calls = self._layout = None
        self._attached = False

    def _read_site(self) -> None:
        """Read the calls of the site, if it is known, and the layout of the layer's packed sequences."""
        if self.site is not None:
            self._layout = ForwardCalls(self.module, after=self._note_packing) if self._packed else None
            self._calls = self.site.register(self._take)

    def _forget_site(self) -> None:
        for calls in (self._calls, self._layout):
            if calls is not None:
                calls.remove()
        self._calls = self._layout = self.site = None

    def _called(self, output: Any) -> None:
        self.uncalled = 0

    def _note_form(self, output: Any) -> None:
        self.returned = form_of(output)

    def _note_packing(self, output: Any) -> None:
        if self.recording:
            self._packings.append(packing_of(output))

    def _take(self, value: Any) -> None:
        if not self.recording or not isinstance(value, Tensor):
            return
        if self._taps:
            with torch._C.DisableTorchFunction():
                self._codes.append(value.detach().clone())
        else:
            self._codes.append(value.detach().clone())


def _layer_code(codes: list[Tensor], activation: str, packings: list[Packing | None]) -> LayerCode | None:
    """Return the codes of a step that are rows of units, with the packed sequences whose tokens these are; None without any."""
    layouts = packings if len(packings) == len(codes) else [None] * len(codes)
    pairs = [
        (code, layout if layout is not None and layout.fits(code) else None)
        for code, layout in zip(codes, layouts, strict=True)
        if code.dim() > 1 and code.numel()
    ]
    return LayerCode([code for code, _ in pairs], activation, [layout for _, layout in pairs]) if pairs else None
