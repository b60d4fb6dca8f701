"""Where a number lies in memory decides nothing: operations of every kind at every place, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from placed import ELEMENTWISE, LINEAR_ALGEBRA, REDUCTIONS, numbers

from harness.placement import EXACT, MATRICES, OWN, UNTAGGED, PlaceInvariant, aligned, place_invariant

COUNTS = (1, 2, 3, 7, 8, 15, 16, 31, 33, 48, 63, 65, 200)
DTYPES = (torch.float32, torch.float64)
LEFT = torch.randn(5, 45, 11, generator=torch.Generator().manual_seed(1))
RIGHT = torch.randn(5, 11, 20, generator=torch.Generator().manual_seed(2))


def dense(values):
    """Whether the numbers lie in memory without gaps, in whatever order."""
    return values.permute(sorted(range(values.dim()), key=values.stride, reverse=True)).is_contiguous()


def bits(values):
    return values.nan_to_num(77.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_operation_gives_a_number_the_same_bits_in_every_company(name, dtype):
    operation, operands = ELEMENTWISE[name], numbers(ELEMENTWISE[name], 1024, dtype)
    with PlaceInvariant():
        whole = operation(*operands)
        for count in COUNTS:
            for start in (0, 100):
                part = operation(*(operand[start : start + count].clone() for operand in operands))
                assert torch.equal(bits(part), bits(whole[start : start + count])), (count, start)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_an_elementwise_operation_gives_is_torchs(name):
    for shape in ((5, 7, 3), (64,), (3, 1)):
        operation, operands = ELEMENTWISE[name], numbers(ELEMENTWISE[name], torch.Size(shape).numel(), torch.float64)
        operands = [operand.view(shape) for operand in operands]
        for given in (operands, [operand.movedim(0, -1) for operand in operands]):
            wanted = operation(*given)
            with PlaceInvariant():
                result = operation(*given)
            assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
            assert dense(result)
            # two functions for one number differ in its last digits
            torch.testing.assert_close(result, wanted, rtol=1e-13, atol=1e-15, equal_nan=True)


def test_operands_of_several_shapes_are_broadcast_and_gaps_left_out():
    one, other = LEFT[:, :, ::2], RIGHT[:, :1, :1]
    with PlaceInvariant():
        result = torch.atan2(one, other)
        alone = [torch.atan2(each.clone(), number) for each, number in zip(one, other[:, 0, 0], strict=True)]
    torch.testing.assert_close(result, torch.atan2(one, other))
    assert torch.equal(result, torch.stack(alone))


def test_an_operation_in_place_changes_what_it_was_given():
    whole = LEFT.flatten()[:1024].clone()
    for values in (whole, whole[:33], whole.view(32, 32)[:, 3:14]):
        given = values.clone() if values.is_contiguous() else values
        wanted = given.sigmoid()
        with PlaceInvariant():
            result = given.sigmoid_()
        assert result is given
        torch.testing.assert_close(given, wanted)


def test_several_results_come_as_torch_gives_them():
    with PlaceInvariant():
        result, _ = torch.ops.aten.log_sigmoid_forward(LEFT[:3, :1, :3])
    torch.testing.assert_close(result, F.logsigmoid(LEFT[:3, :1, :3]))


def test_whole_numbers_truths_and_no_numbers_at_all_are_left_to_torch():
    with PlaceInvariant():
        assert (torch.arange(3) ** 2).tolist() == [0, 1, 4]
        assert torch.pow(torch.arange(3), torch.tensor(2)).tolist() == [0, 1, 4]
        assert torch.zeros(0, 3).sigmoid().shape == (0, 3)
        assert float(torch.tensor(0.0).sigmoid()) == 0.5


@pytest.mark.parametrize("name", sorted(EXACT | UNTAGGED | set(OWN) | set(MATRICES)))
def test_an_operation_that_is_named_is_one_of_torch(name):
    assert hasattr(torch.ops.aten, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 33, 33), (5, 16, 5), (33, 20, 7), (45, 11, 20), (20, 45, 3), (64, 64, 64)], ids=str
)
def test_a_product_has_the_same_bits_wherever_its_matrices_lie(shape, turned, dtype):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(rows)

    def matrix(down, along, is_turned):
        form = (along, down) if is_turned else (down, along)
        values = torch.randn(form, generator=generator, dtype=dtype)
        return values.T if is_turned else values

    one, other = matrix(rows, inner, turned[0]), matrix(inner, columns, turned[1])

    def behind(members, values):  # each matrix right behind the one before it
        flat = values if values.is_contiguous() else values.T
        copies = flat.expand(members, *flat.shape).contiguous()
        return copies if values.is_contiguous() else copies.mT

    def beside(members, values):  # each row of a matrix beside the same row of the others
        return values[:, None].expand(rows, members, inner).contiguous().movedim(1, 0)

    with PlaceInvariant():
        results = [torch.bmm(behind(members, one), behind(members, other)) for members in (2, 3, 17)]
        shared = torch.bmm(behind(17, one), other.expand(17, inner, columns))
        between = [torch.bmm(beside(members, one), behind(members, other)) for members in (2, 3, 17)]
    for result in (*results, shared):
        assert torch.equal(result, results[0][:1].expand_as(result))
    for result in between:
        assert torch.equal(result, between[0][:1].expand_as(result))
    assert results[0].is_contiguous()
    # only the order of the additions is another
    torch.testing.assert_close(results[0][0], one @ other, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_does_not_depend_on_whose_numbers_lie_between(name, dtype):
    values = torch.randn(45, generator=torch.Generator().manual_seed(3), dtype=dtype)
    results = []
    with PlaceInvariant():
        for members in (2, 8, 24, 33):
            between = values[:, None].expand(45, members).contiguous().T  # the members' numbers lie beside each other
            results.append(REDUCTIONS[name](between))
    for result in results:
        assert torch.equal(result, results[0][:1].expand_as(result))
    torch.testing.assert_close(results[0][0], REDUCTIONS[name](values[None])[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_what_is_done_with_a_matrix_does_not_depend_on_the_others(name, dtype):
    operation = LINEAR_ALGEBRA[name]
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(4), dtype=dtype)
    matrix = rows.T @ rows + torch.eye(7, dtype=dtype)
    with PlaceInvariant():
        results = [operation(matrix.expand(members, 7, 7).contiguous()) for members in (1, 2, 5, 24)]
        one = operation(matrix)
    for result in results:
        assert torch.equal(result, results[0][:1].expand_as(result))
    torch.testing.assert_close(one, results[0][0])
    torch.testing.assert_close(one, operation(matrix), rtol=1e-3, atol=1e-4)


def test_a_function_can_be_made_place_invariant():
    both = place_invariant(lambda values: (values.sigmoid(), values.sum()))
    result, total = both(LEFT)
    torch.testing.assert_close(result, LEFT.sigmoid())
    torch.testing.assert_close(total, LEFT.sum())


def test_numbers_that_begin_at_a_line_of_memory_are_not_copied():
    memory = torch.zeros(64)
    assert memory.data_ptr() % 64 == 0  # as torch has it
    assert aligned(memory) is memory
    assert aligned(memory[16:]).data_ptr() == memory[16:].data_ptr()
    moved = aligned(memory[1:])
    assert moved.data_ptr() % 64 == 0
    assert torch.equal(moved, memory[1:])
