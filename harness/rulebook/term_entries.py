"""Entries on rules of the audit that concern a loss term."""

from harness.rulebook.entry import Entry

TERM_ENTRIES: dict[str, Entry] = {
    "no_gradient": Entry(
        "The term is detached from the graph: `.item()`, `.detach()`, numpy, a comparison.",
        "`.item()` on a count, `.detach()` or numpy in the loss, `(code > 0).sum()`, `torch.no_grad()`"
        " around the penalty.",
        {
            "zero_gradient": "the term is in the graph, but its gradient is 0",
            "cut_encoder": "the main term does not reach the encoder",
        },
        source="torch autograd: comparisons and `.item()` leave the graph",
        says="the term is logged but has no effect on training",
        remedy="take the term from the code itself; replace a count by the mean of a sigmoid code, or by L1 on a"
        " ReLU code",
    ),
    "zero_gradient": Entry(
        "It is in the graph, and its gradient is 0 on the data, at random and at large outputs of every"
        " layer, and with random changes of all parameters; a gradient whose norm in float64 is below"
        " 0.001 of that in float32 is rounding and counts as 0 (a softmax averaged over its own axis);"
        " silent where a schedule gives it a gradient after 50 or 300 training steps, and the other rules"
        " then judge that later state. A note where a keyword of the loss is 0 and a penalty has a gradient with 1:"
        " the term is switched off.",
        "A hard threshold; a softmax summed over its own axis; values overwritten in place with 0 and 1.",
        {"no_gradient": "the term is not in the graph at all", "negligible": "the gradient is small, not 0"},
        source="Bengio, Léonard & Courville 2013 (arXiv 1308.3432) for straight-through estimators",
        says="the term is in the graph, and trains nothing",
        remedy="use the mean of a sigmoid, L1, or a straight-through estimator; check the axes",
    ),
    "misses_bottleneck": Entry(
        "It stays the same when the code in use is replaced, scaled, silenced or shuffled, later layers following.",
        "A penalty on the wrong layer; a penalty on parameters of other layers; a loop over `children()`"
        " that ends elsewhere.",
        {
            "wrong_layer": "names the layer that the penalty reads instead",
            "not_the_code_in_use": "the right layer, before its activation",
        },
        says="the penalty does not constrain the code",
        remedy="apply the penalty to the values that the decoder reads",
    ),
    "wrong_layer": Entry(
        "With the outputs of all other layers fixed it depends on another layer, which is named, and not"
        " on the bottleneck; silent for a head of its own on the code (classifier, projection head,"
        " critic, probe), which the main term does not use.",
        "An index into `model.children()`; a layer that was added before the bottleneck.",
        {
            "misses_bottleneck": "said when no other layer explains the penalty's value",
            "index_addressing": "the layer is right today, but chosen by position",
        },
        says="the penalty constrains another layer than the bottleneck",
        remedy="apply the penalty to the bottleneck's code, by name",
    ),
    "wrong_axis": Entry(
        "It has a set point, does not see units shuffled within rows, and sees rows shuffled within units.",
        "`mean(1)` where `mean(0)` was meant: one mean for each row. A single unit may then be on for"
        " every row while each row's mean is at the target.",
        {"depends_on_batch_size": "often beside it: one term for each row, summed"},
        source="Ng 2011, CS294A lecture notes: rho_hat is the mean over the training set, one for each unit",
        says="the penalty averages over units where it should average over rows",
        remedy="average over the batch (dim 0), one value for each unit",
    ),
    "not_the_code_in_use": Entry(
        "It changes with the bottleneck's output while the code in use stays; a risk where the activation"
        " can be undone, and nothing where the term is a function of the code's means that is computed"
        " from its logits.",
        "A penalty on pre-activations, while the decoder reads `relu(z)`.",
        {
            "misses_bottleneck": "the penalty ignores the layer",
            "unreachable_target": "the code in use cannot reach the target",
        },
        says="the penalty constrains other values than those that the decoder reads",
        remedy="penalize the activation itself",
    ),
    "unreachable_target": Entry(
        "The set point (the code at which the term is least) lies outside the range of the layer's activation, and the"
        " least value within that range is higher by more than a tenth of the difference between a typical value and the"
        " least. The units of a softmax add up to 1, which is part of its range. Terms that are not 0 at their set point,"
        " such as an entropy, are not judged.",
        "A sigmoid inside the penalty over a ReLU code: mean(sigmoid(relu(a))) is never below 0.5, and"
        " the target is 0.05.",
        {
            "collapse_optimum": "the target can be reached, by a constant code",
            "dominates": "the weight is too high for any target",
        },
        thresholds=("unreachable_share",),
        says="the penalty keeps pushing units to the end of their range",
        remedy="put the sigmoid into the model, so that the penalized values are the code, or use L1 on the ReLU code",
    ),
    "collapse_optimum": Entry(
        "It has a set point (a value of the code at which it is least and that is not 0, such as rho), and three"
        " descents on it alone all end at a code that is constant or dead; a note for a term without one (L1, L2),"
        " or every deviation from the set point raises it although the means of rows and units stay (a"
        " divergence per entry). Of the main term: the sum of all terms compares no output with the batch,"
        " and one constant code for all rows lowers it as far as a free code per row; a note behind a"
        " normalization or where some place reads the code detached.",
        "A divergence for each entry instead of the mean over the batch; an objective that compares no"
        " output with the batch (contrastive or predictive terms without negatives).",
        {"pushes_active_units_down": "says how it gets there", "unreachable_target": "the least value is out of reach"},
        source="Grill et al. 2020 (arXiv 2006.07733) and Chen & He 2021 (arXiv 2011.10566) for objectives"
        " without negatives",
        says="the term is least for a constant or dead code",
        remedy="average over the batch first, then take the divergence of the mean; for an objective, add a term"
        " that spreads the code",
    ),
    "pushes_active_units_down": Entry(
        "At 16 levels of activity its gradient is >= 0 on every active entry and 0 on every inactive one; a note for"
        " a term that has no set point above 0 (L1, L2), whose purpose this is.",
        "A penalty on `relu(z)` whose target lies below every value that it can take.",
        {"collapse_optimum": "where the descent ends"},
        says="the term lowers active units and never activates inactive ones",
        remedy="penalize a mean that can lie on both sides of its target",
    ),
    "unbounded": Entry(
        "It falls from each value to the next, and the falls do not die out, as the code grows or shrinks"
        " by factors up to 1e12. A risk where it falls by equal amounts for every factor of 1000 as the code grows: a log barrier.",
        "A KL divergence of values that are not probabilities; a negative term such as minus a variance.",
        {"outside_domain": "NaN instead of ever lower values", "diverges": "training met it"},
        says="minimizing the term drives the code to infinity, or to the end of its range",
        remedy="apply a divergence to probabilities (the mean of a sigmoid, a softmax), or bound the term",
    ),
    "escape": Entry(
        "Its gradient at a unit with the observed spread vanishes once the unit is large, and only then.",
        "A clamp or a saturating function around the code inside the penalty.",
        {"zero_gradient": "the gradient is 0 everywhere"},
        thresholds=("escape",),
        says="units that are already large escape the penalty",
        remedy="remove the clamp, or penalize a bounded code",
    ),
    "outside_domain": Entry(
        "NaN or infinite on the data, for a unit that is zero on every row, or at 3 or 10 times the"
        " observed pre-activations; a risk where only its gradient is, and where it is a number in float64"
        " and not in the model's own precision: at 3 or 10 times the observed pre-activations, or from"
        " some constant up to 30 on.",
        "log(0) of a dead unit; a KL of means that round to 1 in float32; a square root at 0.",
        {"diverges": "training met NaN within 300 steps", "unbounded": "finite, but without a least value"},
        says="the term is NaN or infinite for values that training can reach",
        remedy="clamp inside the logarithm, or compute the KL from logits (`harness.penalties.bernoulli_kl_of_logits`)",
    ),
    "dominates": Entry(
        "Its gradient at the bottleneck is above 10 times the reconstruction's at birth, or above 3 at"
        " every probe; a fault above 1000 at birth. Or training leaves the code unused: exchanging the codes between"
        " rows raises the main term by less than 0.02 of what it does in a training without the penalty. In a watched loop"
        " with `monitor.terms(...)`: the median ratio of the latest 20 observed steps is above 10 (a fault above 1000), or"
        " the ratio is above 3 in each of at least 20.",
        "A sum over units or rows beside a mean; a weight that was copied from another model.",
        {"negligible": "the opposite", "depends_on_batch_size": "the ratio changes with the batch size"},
        thresholds=(
            "dominates_fault",
            "dominates_birth",
            "dominates_always",
            "unused_gain",
            "used_gain",
            "silenced",
            "recovered",
        ),
        says="the penalty outweighs the main term at the bottleneck",
        remedy="multiply the weight by the factor that the finding names; it was tried",
    ),
    "negligible": Entry(
        "Its gradient at the bottleneck is below 0.005 of the reconstruction's at every probe; a fault"
        " below 1e-6. A term at its floor at every probe (free bits, a hinge) has ratio 0: a fault, or a"
        " risk where its value is 0, since its condition holds then. Also a term whose gradient at the bottleneck is"
        " larger, but of which less than a hundredth passes a normalization before the code.",
        "A mean over all entries with a small weight; free bits above the divergence; a hinge whose condition holds.",
        {"zero_gradient": "the gradient is exactly 0", "dominates": "the opposite"},
        thresholds=(
            "negligible_fault",
            "negligible_risk",
        ),
        says="the penalty has almost no influence on training",
        remedy="multiply the weight by the factor that the finding names, lower the floor, or remove the term",
    ),
    "depends_on_batch_size": Entry(
        "Abs(d log term / d log batch size) > 0.25, the same rows repeated 1, 2 and 4 times, and its differences grow"
        " as a power of the batch size too (not as its logarithm, as with negative pairs).",
        "A sum over the rows beside a mean over the rows.",
        {"wrong_axis": "one term for each row, summed"},
        thresholds=("batch_slope",),
        says="the weight of the term changes with the batch size",
        remedy="take the mean over the batch",
    ),
    "edits_in_place": Entry(
        "Evaluating the loss changes activations of the model, parameters or the batch (buffers and"
        " attributes are the model's own: statistics are kept there).",
        "`code[code > 0] = 1`, `x -= x.mean(0)` on the batch, an optimizer step inside the loss.",
        {"zero_gradient": "values overwritten with constants have no gradient either"},
        says="evaluating the loss changes the model, its activations or the batch",
        remedy="work on a copy: `torch.where(code > 0, 1, code)`, `x = x - x.mean(0)`",
    ),
    "index_addressing": Entry(
        "Inserting a layer that does nothing leaves the model's output alone and moves the term, or breaks it.",
        "`list(model.children())[3]`, a counter in a loop over modules.",
        {"wrong_layer": "the position is wrong already"},
        says="the penalty is tied to a position, so an added layer moves it silently",
        remedy="address the layer by name, or use the values that forward returns",
    ),
}
