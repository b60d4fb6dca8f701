"""Entries on verdicts and flags of units, in the order of precedence of the verdicts."""

from harness.rulebook.entry import Entry

LU = "Lu et al. 2019 (arXiv 1903.06733), dying ReLU"
LUCAS = "Lucas et al. 2019 (arXiv 1911.02469), delta-active units; Bowman et al. 2016 (arXiv 1511.06349)"

UNIT_ENTRIES: dict[str, Entry] = {
    "invalid": Entry(
        "A value is NaN or infinite. A unit is judged by itself: the other units keep their numbers. A layer is invalid if"
        " one of its units is.",
        "A learning rate that is too high, log(0) or 0/0 in the loss, a square root at 0, overflow in 16-bit floats.",
        {
            "diverges": "the audit found the step at which training met NaN",
            "outside_domain": "the audit found the values at which a loss term is NaN",
        },
    ),
    "not_testable": Entry(
        "There is one row, or all input rows are equal.",
        "A batch of one row, a loader that repeats one sample, inputs that preprocessing made constant.",
        {
            "never_fired": "the rows differ, but are too few",
            "output_not_testable": "the same said of the output, where the data do not vary",
        },
    ),
    "never_fired": Entry(
        "The unit is constant and never on, on fewer than 368 distinct rows. So few rows do not exclude that the unit fires"
        " on 1 % of all rows (upper Clopper-Pearson bound).",
        "Too few evaluation rows; the unit may be dead or rare.",
        {"dead": "the same on 368 distinct rows or more", "rare": "fires on some of more rows"},
        ("claimable_frequency", "confidence", "range_epsilons"),
        "Clopper & Pearson 1934 for the bound",
    ),
    "dead": Entry(
        "The unit is constant and never on: max - min is at most 64 roundings of its size, and no pre-activation is above the"
        " activation's threshold (0 for a ReLU), on at least 368 distinct rows.",
        "A large step or a high learning rate that pushed the bias far below 0; inputs with an offset; a penalty that pulls"
        " activity to 0; an unlucky initialization of a narrow layer.",
        {
            "never_fired": "too few rows to exclude a frequency of 1 %",
            "rare": "fires on a few rows, and still learns from these",
            "constant_off": "constant, but the activation has no off state (tanh, linear, GELU)",
            "dead_at_birth": "the audit found such units before any training",
        },
        ("range_epsilons", "claimable_frequency", "confidence"),
        f"{LU}; Clopper & Pearson 1934 for the bound",
    ),
    "constant_at_target": Entry(
        "The unit is constant, and its value is within a tenth of the penalty's target (rho).",
        "A KL sparsity penalty on the mean activation: a constant at the target costs nothing, and no other term asks the unit"
        " for information.",
        {
            "constant_on": "constant elsewhere",
            "collapse_optimum": "the audit says this of the penalty, before training",
        },
        ("target_tolerance", "range_epsilons"),
    ),
    "constant_on": Entry(
        "The unit is constant, and on for every row.",
        "Saturation of a sigmoid at 1; weights that vanished beside a positive bias; a penalty that rewards activity.",
        {
            "always_on": "on for every row, but it varies with the input",
            "constant_at_target": "constant at the penalty's target",
            "near_constant": "varies by less than a thousandth of its size",
        },
        ("range_epsilons",),
    ),
    "constant_off": Entry(
        "The unit is constant, and neither on for every row nor off in the sense of `dead`. It is the only constant verdict of"
        " tanh and linear units, which have no off state.",
        "Weights that vanished; a saturated tanh; a sigmoid saturated at 0.",
        {"dead": "a rectifier that never fires", "constant_on": "constant and on"},
        ("range_epsilons",),
    ),
    "subthreshold": Entry(
        "The unit varies below the activation's threshold, and crosses it on fewer than five distinct rows: the negative side"
        " of a leaky ReLU, for example.",
        "leaky_relu, ELU, GELU or SiLU units that learned a negative pre-activation.",
        {"dead": "constant, so that nothing is learned", "rare": "constant except for the rows on which it fires"},
        ("few_rows",),
    ),
    "rare_insufficient": Entry(
        "The unit varies on one to four distinct rows only: dependence on labels and factors is not judged.",
        "Too few rows for a sparse code; a unit that is dying.",
        {"rare": "fires on five rows or more", "never_fired": "fires on none"},
        ("few_rows",),
    ),
    "at_prior": Entry(
        "The KL divergence of the unit's posterior from its prior is below 0.01 nats on at least 99 % of at least 368 distinct"
        " rows. It counts as not live. It is judged only where the log-variance is given (`posterior=`).",
        "A KL weight that is too high early in training; a decoder that predicts well without the code.",
        {
            "dead": "constant activations; the mean of a collapsed posterior still varies a little",
            "rare": "the posterior is informative on 5 rows or more, but at most 1 %",
            "posterior_not_testable": "too few rows to call a unit at_prior",
        },
        ("prior_nats", "prior_share", "claimable_frequency"),
        LUCAS,
    ),
    "near_constant": Entry(
        "The unit's standard deviation is below a thousandth of its root mean square, and it depends on no label or factor.",
        "A large bias beside small weights; a code on a very small scale around a large mean.",
        {"constant_on": "does not vary at all", "constant_off": "does not vary at all"},
        ("near_constant",),
    ),
    "rare": Entry(
        "The unit is constant except for firing on fewer than 1 % of the rows, or its posterior is informative on so few.",
        "A specialized unit of a sparse code; a unit on its way to dead.",
        {"rare_insufficient": "fires on fewer than five rows", "dead": "fires on none of at least 368 distinct rows"},
        ("rare_frequency", "few_rows"),
        "Bricken et al. 2023, Towards Monosemanticity, for rare features of sparse autoencoders; the bound is this project's",
    ),
    "saturated_bimodal": Entry(
        "The unit follows a sigmoid, and at least 95 % of its values are within 0.001 of 0 or 1, with values at both ends.",
        "Large weights before the sigmoid; a penalty that rewards binary codes.",
        {"constant_on": "saturated at one end only", "constant_off": "saturated at one end only"},
        ("saturation", "saturated_share"),
        "Rakitianskaia & Engelbrecht 2015, measuring saturation; the bounds are this project's",
    ),
    "alive": Entry(
        "None of the other verdicts holds.",
        "The unit varies with the input. It is not necessarily useful: read R2 and the ablation effect too.",
        {"rare": "fires on fewer than 1 % of the rows", "unused": "alive, but the decoder does not need it"},
        severity="none",
        says="varies with the input",
        remedy="nothing",
    ),
    "stochastic": Entry(
        "The unit differs between two passes over the same rows (`repeat=`). It counts as constant if the upper 95 % bound of"
        " its test-retest reliability is below 0.05.",
        "Dropout or noise that is on in eval mode; batch statistics; a sampled code.",
        {"at_prior": "the noise of a collapsed posterior: give `posterior=`"},
        ("reliability", "confidence"),
    ),
    "heavy_tailed": Entry(
        "The unit's kurtosis is above 100 (a normal unit has 3), or one row holds half of its energy.",
        "Outliers among the rows; a sparse unit with few large values.",
        {"rare": "fires on few rows at all"},
        ("heavy_kurtosis", "heavy_energy"),
    ),
    "unused": Entry(
        "Replacing the unit by its mean at each position changes R2 by less than 0.001 (measured for up to 32 units, on up to 256"
        " held-out samples). The layer is `unused` only if replacing all units together changes R2 that little: two copies are"
        " each unused, but the code as a whole is used.",
        "A copy of another unit; a decoder whose weights to the unit vanished; more units than the data have dimensions.",
        {"dead": "the unit itself does not vary", "duplicates": "the unit repeats another one"},
        ("unused",),
        "ablation to the mean; Morcos et al. 2018 (arXiv 1803.06959)",
    ),
    "input_independent": Entry(
        "The unit has one value at each position of a sample (a token, a pixel), whatever the input: its range within a position"
        " is no more than rounding, its range over all positions together is. It counts as constant. While a loop is watched, the rows of one"
        " training step are compared.",
        "A collapsed sequence model whose states follow a position embedding or a recurrence of their own; a"
        " zero-padded convolution of a constant input, of which only the border differs; weights that still move while the unit is"
        " constant.",
        {
            "constant_on": "the same at every position too",
            "alive": "differs between inputs at some position",
        },
        ("range_epsilons",),
    ),
    "always_on": Entry(
        "The unit is on for every row of a number that excludes a frequency below 99 %, and it varies.",
        "A positive bias; inputs with an offset; a rectifier that the model does not need.",
        {"constant_on": "does not vary", "single_unit_dominance": "all other units are constant"},
        ("claimable_frequency", "confidence"),
    ),
}
