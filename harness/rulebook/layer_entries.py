"""Entries on verdicts and flags of layers and outputs."""

from harness.rulebook.entry import Entry

PAPYAN = "Papyan, Han & Donoho 2020 (arXiv 2008.08186)"
JING = "Jing et al. 2022 (arXiv 2110.09348), dimensional collapse; Hua et al. 2021 (arXiv 2105.00470)"

LAYER_ENTRIES: dict[str, Entry] = {
    "full_collapse": Entry(
        "No unit is live: each is constant (`dead`, `never_fired`, `constant_on`, ...) or `at_prior`.",
        "A penalty that is least when every unit is dead; a learning rate that killed the layer; a posterior that collapsed.",
        {
            "single_live_unit": "one unit is live",
            "constant_output": "the output is constant, though the code may vary",
            "cut_encoder": "the code may vary, but the encoder does not learn",
        },
        source="Lucas et al. 2019 (arXiv 1911.02469) for posteriors; Lu et al. 2019 (arXiv 1903.06733) for rectifiers",
    ),
    "single_live_unit": Entry(
        "Exactly one of several units is live.",
        "The same as of a full collapse, halted by the reconstruction; data of one dominant direction, such as the luminance of"
        " photographs.",
        {
            "single_unit_dominance": "a flag: the one live unit also fires on every row",
            "dimensional_collapse": "several units are live, but span few dimensions",
        },
    ),
    "near_collapse": Entry(
        "Every live unit is `near_constant`.",
        "A large bias beside small weights; weight decay or a penalty that shrank the code.",
        {"full_collapse": "no unit varies at all"},
        ("near_constant",),
    ),
    "partial_collapse": Entry(
        "At least two units are live, and at least one is not.",
        "A few dead units of an unlucky initialization; more units than the data need; a mild penalty.",
        {"single_live_unit": "only one is live", "redundant": "all are live, but some are copies"},
    ),
    "redundant": Entry(
        "The live units form groups of copies (correlation or rank correlation of at least 0.99), and the groups number at"
        " most half of the live units.",
        "Equal initial weights; more units than the data have dimensions; a penalty that does not separate the units.",
        {
            "duplicates": "a flag: some copies, but more groups than half of the live units",
            "dimensional_collapse": "no copies, but few dimensions together",
            "symmetric_init": "the audit says this of the initialization",
        },
        ("duplicate_correlation", "redundant_share"),
    ),
    "dimensional_collapse": Entry(
        "The rank of the live units' correlation matrix (eigenvalues above 0.01 of the largest) is at most half of the smaller"
        " of live units and dimension of the inputs, on at least four distinct rows for each live unit.",
        "A contrastive or self-distilled objective without a term that spreads the code; strong weight decay; implicit"
        " regularization of deep linear layers.",
        {
            "redundant": "units are copies one of another",
            "single_live_unit": "the other units do not vary",
            "neural_collapse": "the code has one point for each class",
        },
        ("rank_tolerance", "dimensional_share", "input_variance", "dimensional_rows"),
        JING,
    ),
    "healthy": Entry(
        "None of the other verdicts holds.",
        "The layer varies with the input in as many dimensions as can be expected. Flags may still hold.",
        severity="none",
        says="no collapse was found",
        remedy="nothing",
    ),
    "single_unit_dominance": Entry(
        "One unit fires on every row, and all others are constant.",
        "Inputs with an offset, and a penalty or a high learning rate that silenced the other units; the symptom of the forum"
        " question from which this package started.",
        {"single_live_unit": "the verdict beside it; its unit may be off on some rows"},
        ("claimable_frequency",),
    ),
    "duplicates": Entry(
        "Some live units have a correlation or rank correlation of at least 0.99 with another one.",
        "More units than the data have dimensions; equal initial weights.",
        {"redundant": "the groups of copies are at most half of the live units"},
        ("duplicate_correlation",),
    ),
    "nonlinear_redundancy": Entry(
        "Two units share at least half of the smaller entropy, and are no copies.",
        "A unit that is the square, or the absolute value, of another one; units that switch together.",
        {"duplicates": "correlated, linearly or by rank"},
        ("nonlinear_share", "pair_units"),
        "Cover & Thomas, Elements of Information Theory, 2.3",
    ),
    "neural_collapse": Entry(
        "Labels of C classes are given, the rank is at most C - 1, and at most a tenth of the live units' variance lies within"
        " classes.",
        "The end of a classifier's training.",
        {"dimensional_collapse": "the rank is low for another reason, or no labels are given"},
        ("within_class", "rank_tolerance"),
        PAPYAN,
    ),
    "rank_not_testable": Entry(
        "There are fewer than four distinct rows for each live unit, or more than 4096 live units.",
        "A wide layer on few rows.",
        {"dimensional_collapse": "the rank was judged, and is low"},
        ("dimensional_rows",),
    ),
    "posterior_not_testable": Entry(
        "A unit's posterior equals the prior on every row, on fewer than 368 distinct rows.",
        "Too few evaluation rows.",
        {"at_prior": "the same on more rows"},
        ("prior_nats", "claimable_frequency"),
    ),
    "nonlinear_redundancy_not_searched": Entry(
        "The layer has more than 256 units.",
        "A wide layer: the number of pairs grows with the square of the units.",
        {"nonlinear_redundancy": "pairs were compared, and some share information"},
        ("pair_units",),
    ),
    "never_called": Entry(
        "The watched layer was not called while the monitor was open, or returned no `[sample, unit, ...]`: a scalar, a list"
        " of tensors.",
        "Parts of the model are called by themselves, so that the model's own call never happens; a layer that only evaluation"
        " uses; a misspelt pattern that also matches other layers.",
        {"not_testable": "the layer was called, on rows that do not differ"},
        severity="risk",
        says="nothing was recorded of this layer",
        remedy="call the model as a whole, model(x), inside the block",
    ),
    "unit_axis": Entry(
        "The layer's output has several axes, and the axis of the units was chosen by the kind of layer: 1 for convolutions,"
        " the last otherwise.",
        "Channels-last layouts, or sequences with the units in the middle.",
        {"dimensional_collapse": "a wrong axis shows other numbers of units and rows: read them first"},
        severity="note",
        says="units are taken along this axis; all other positions are rows",
        remedy="say unit_axis= if it is another one",
    ),
    "revived": Entry(
        "A watched unit was active again after a whole window without activity, an epoch of at least 1,000 rows.",
        "A learning rate that falls, a penalty that gets weaker, or other rows: the weights before the unit still move.",
        {"dead": "not active on the rows of the last window"},
        severity="note",
        says="units were dead for a while in training, and are active again",
        remedy="none is needed; the last window judges these units as they are now",
    ),
    "units_sampled": Entry(
        "The layer has more than 8,192 units: so many, evenly spaced, are judged.",
        "A wide layer, such as a sparse autoencoder.",
        {"nonlinear_redundancy_not_searched": "all units were judged, but not all pairs compared"},
        severity="note",
        says="a part of a wide layer's units is judged, all units are counted",
        remedy="read the counts of all units in the finding, and in monitor.units()",
    ),
    "training_rows": Entry(
        "The rows come from a data loader that shuffles, as the loaders of training rows do.",
        "The training loader was passed instead of the one with held-out rows.",
        {"healthy": "judged on the rows that were passed, whichever they are"},
        severity="note",
        says="the rows may be those that the model was trained on",
        remedy="pass held-out rows, such as the loader of the validation data",
    ),
}

OUTPUT_ENTRIES: dict[str, Entry] = {
    "invalid_output": Entry(
        "The output contains NaN or infinity.",
        "A learning rate that is too high; log(0) or 0/0; overflow in 16-bit floats.",
        {"invalid": "a unit of the bottleneck contains NaN"},
    ),
    "output_not_testable": Entry(
        "The data that the output is compared with do not vary on these rows.",
        "One row, or equal rows.",
        {"mean_output": "the data vary, and the output does not follow"},
    ),
    "constant_output": Entry(
        "No feature of the output varies (the range test of the units), although the inputs do.",
        "A collapsed code; a softmax over one number; a saturated output activation; dead layers behind the bottleneck.",
        {"mean_output": "varies, but is no better than the mean", "full_collapse": "the code itself is constant"},
        ("range_epsilons",),
    ),
    "mean_output": Entry(
        "R2 is 0 or less, or the upper bound of its 95 % interval is at most 0.05.",
        "Too little training; a penalty that outweighs the reconstruction; an output range that does not fit the data.",
        {
            "constant_output": "does not vary at all",
            "below_pca": "better than the mean, but worse than principal components",
            "output_range": "the audit found that the output cannot reach the data",
        },
        ("mean_output_r2", "confidence"),
        "delta method for the interval of R2",
    ),
    "dead_outputs": Entry(
        "More than 5 % of the output's features are constant, while the data vary there.",
        "A ReLU as output activation; a sigmoid for data outside [0, 1].",
        {"constant_output": "no feature varies", "output_range": "the audit says this before training"},
        ("dead_outputs", "range_epsilons"),
    ),
    "worse_than_mean": Entry(
        "Read from results of earlier versions only; such an output is `mean_output` today.",
        "See `mean_output`.",
        {"mean_output": "today's name"},
    ),
    "below_pca": Entry(
        "The upper bound of R2's interval is below the R2 of as many principal components as there are live units (times positions), by at"
        " least 0.01.",
        "Too little training; an output activation that does not fit the data; dead or redundant units.",
        {"mean_output": "no better than the mean"},
        ("below_pca", "confidence"),
        "Baldi & Hornik 1989: a linear autoencoder learns the principal components",
    ),
    "logits_output": Entry(
        "The rows lie between 0 and 1, the output runs below and above, explains nothing as it is, and explains them"
        " behind a sigmoid.",
        "A decoder that ends in a linear layer before a loss that takes logits.",
        {"output_range": "a sigmoid before a loss that takes logits"},
        ("mean_output_r2",),
    ),
}
