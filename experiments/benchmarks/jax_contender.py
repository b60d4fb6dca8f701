"""The source network with KL on a sigmoid code in JAX: `vmap` over members, `scan` over steps, jitted."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from processes import cores
from ready import BATCH, EPOCH, Ready

SIZES = ((100, 40), (40, 20), (20, 4), (4, 20), (20, 40), (40, 100))
ROWS = "import sys, numpy, workloads as w; numpy.save(sys.stdout.buffer, w.WORKLOADS[w.SOURCE]().rows.numpy())"


def source_rows() -> Any:
    """The source's training rows, read by another process: torch is not to count as memory of JAX."""
    told = subprocess.run([sys.executable, "-c", ROWS], cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True)
    return jnp.asarray(np.load(io.BytesIO(told.stdout)))


def vmapped(members: int) -> Ready:
    """All members in one call an epoch."""
    data = source_rows()
    keys = jax.random.split(jax.random.PRNGKey(0), members)
    parameters = jax.vmap(initial)(keys)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, zeros, jnp.zeros(members))
    order = jax.vmap(lambda key: jax.random.permutation(key, len(data))[: EPOCH * BATCH].reshape(EPOCH, BATCH))(keys)

    def epoch(state: Any, order: Any) -> Any:
        return jax.lax.scan(lambda now, index: step(now, data[index]), state, order)[0]

    begun = time.perf_counter()
    run = jax.jit(jax.vmap(epoch)).lower(state, order).compile()
    compiling = time.perf_counter() - begun

    def work(steps: int) -> int:
        held, calls = state, -(-steps // EPOCH)
        for _ in range(calls):
            held = run(held, order)
        jax.block_until_ready(held)
        return calls * EPOCH * members

    return Ready(work, int(os.environ.get("NPROC", cores())), compile_seconds=compiling)


def initial(key: Any) -> list[tuple[Any, Any]]:
    """One member's weights and biases."""
    return [(jax.random.normal(key, size) * size[0] ** -0.5, jnp.zeros(size[1])) for size in SIZES]


def forward(parameters: Any, batch: Any) -> tuple[Any, Any]:
    """The code and the reconstruction."""
    values, code = batch, None
    for index, (weight, bias) in enumerate(parameters):
        values = values @ weight + bias
        values = jax.nn.sigmoid(values) if index == 2 else jax.nn.relu(values)
        code = values if index == 2 else code
    return code, values


def loss(parameters: Any, batch: Any) -> Any:
    """Mean squared error and KL."""
    code, made = forward(parameters, batch)
    mean = code.mean(0)
    kl = (0.05 * jnp.log(0.05 / mean) + 0.95 * jnp.log(0.95 / (1 - mean))).sum()
    return ((made - batch) ** 2).mean() + 1e-3 * kl


def step(state: Any, batch: Any) -> tuple[Any, Any]:
    """One step of Adam."""
    parameters, first, second, count = state
    value, gradient = jax.value_and_grad(loss)(parameters, batch)
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)

    def moved(p: Any, m: Any, v: Any) -> Any:
        return p - 1e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return (jax.tree.map(moved, parameters, first, second), first, second, count), value
