"""Entries on rules of the audit that concern the model, its rows, its optimizer and its training."""

from harness.rulebook.entry import Entry

MODEL_ENTRIES: dict[str, Entry] = {
    "optimizer_misses_parameters": Entry(
        "Trainable parameters are not in the case's optimizer, or tensors that the loss differentiates belong to no"
        " module.",
        "An optimizer that gets `model.decoder.parameters()`; a list of layers that is no"
        " `nn.ModuleList`; an optimizer built before a layer was added.",
        {"unreached_parameter": "in the optimizer, but without a gradient"},
        says="some parameters keep their initial values",
        remedy="pass all parameters: `optimizer=lambda parameters: Adam(parameters)`",
    ),
    "undeclared_posterior": Entry(
        "The model draws Gaussian noise of the shape of the bottleneck's output behind it, and the case declares no"
        " posterior.",
        "A variational autoencoder whose case names the mean only.",
        {"at_prior": "the verdict that needs the posterior"},
        source="Lucas et al. 2019 (arXiv 1911.02469)",
        says="posterior collapse cannot be seen in the mean alone",
        remedy='name the log-variance: Case(posterior="logvar"), or diagnose(mu, posterior=logvar)',
    ),
    "optimizer_extra_parameters": Entry(
        "The optimizer holds parameters that are not the model's.",
        "An optimizer that was built from a global model.",
        {"optimizer_misses_parameters": "often beside it"},
        says="the optimizer also trains another model",
        remedy="use the parameters that the function receives",
    ),
    "output_range": Entry(
        "Data lie outside what the output's activation can produce, and the loss asks for them; a risk"
        " below 1 % of the entries. Or the output is a sigmoid, and the loss is smaller at the logits of the"
        " rows than at the rows themselves and least there, or half as large and the same at larger logits.",
        "A sigmoid or ReLU as output activation for data outside its range, such as standardized data; a sigmoid"
        " before a loss that takes logits.",
        {"dead_outputs": "the diagnosis of what training made of it", "mean_output": "a possible consequence"},
        thresholds=("output_share",),
        says="some entries of the data cannot be reconstructed",
        remedy="make the output linear, or scale the data into its range",
    ),
    "symmetric_init": Entry(
        "Units of a layer equal one another on every row, at every initialisation; units that are 0 on"
        " every row are dead, not copies, unless the whole bottleneck is 0.",
        "Weights initialized with zeros or ones.",
        {"redundant": "the diagnosis after training", "constant_at_birth": "every unit is constant"},
        source="Goodfellow, Bengio & Courville 2016, Deep Learning, 8.4: breaking symmetry",
        says="units with equal weights get equal gradients and remain copies",
        remedy="initialize the weights at random (`torch.nn.init.kaiming_uniform_`)",
    ),
    "dead_at_birth": Entry(
        "Over a tenth of the bottleneck's units, mean over 8 seeds, never fire on the data at initialisation. The code"
        " is what the next layer reads: a unit that a threshold or a top-k behind a rectifier sets to 0 on every row"
        " never fires either; that some units do so is undecided on fewer than 368 distinct rows. Healthy twins: units"
        " that pass the threshold, or are selected, on some rows.",
        "Inputs with an offset; a narrow layer with default biases; negative initial biases; a threshold above all values;"
        " a top-k whose few largest units are the same on every row.",
        {"input_offset": "a cause, named where centering helps", "dead": "the diagnosis after training"},
        thresholds=("dead_share",),
        source="Lu et al. 2019 (arXiv 1903.06733)",
        says="units never fire before any training, and get no gradient",
        remedy="center the inputs, zero the biases, or use leaky_relu",
    ),
    "input_offset": Entry(
        "Norm(mean)/norm(sd) of the inputs is above 1, and centering them revives more than 2 % of the"
        " bottleneck's units or more than a tenth of all ReLU units; a note where it revives more than 2 %"
        " of all ReLU units.",
        "Pixels from 0 to 1 without standardization; luminance.",
        {"dead_at_birth": "a consequence"},
        thresholds=(
            "offset",
            "offset_dead",
        ),
        source="LeCun et al. 1998, Efficient BackProp, 4.3: inputs with mean zero",
        says="the offset of the inputs decides which units are on, for all rows alike",
        remedy="subtract the mean of the training rows from the inputs",
    ),
    "bypass": Entry(
        "With the bottleneck fixed the reconstruction still follows the input, or it never depends on the"
        " bottleneck, also after random changes of all parameters (a decoder that starts at zero is none)."
        " A path through the declared log-variance (`Case.posterior`) alone is none. It is a note where the code"
        " multiplies what is computed from the input (router, attention), and where the objective is not a"
        " reconstruction.",
        "A skip connection around the code; a decoder that reads the inputs; a bottleneck named wrongly.",
        {"cut_encoder": "the code is used, but the encoder does not learn", "unused": "one unit is not needed"},
        thresholds=("bypass",),
        says="the output does not depend on the bottleneck alone, or not at all",
        remedy="remove the connection, or name the layer that all information passes",
    ),
    "mixed_rows": Entry(
        "An output follows the values of other rows: last states `[layer, sample, unit]` viewed as"
        " `[sample, layer * unit]`, a missing transpose, a shift over the rows. Decided in float64, eval"
        " mode and one random state: each of 16 rows is moved by one standard deviation of every feature,"
        " in two directions, and the output of every row is compared. A fault if, for more than half of"
        " the rows, some other row moves the output more (by 1 %) than the row itself. A weaker influence,"
        " above 1e-3 of the output's standard deviation, is a note: evaluate in batches of the training"
        " size. Healthy twins: attention over tokens, BatchNorm in eval mode (silent); attention over the"
        " batch, BatchTopK, batch statistics in eval mode (a note).",
        "Last states `[layer, sample, unit]` viewed as `[sample, layer * unit]`; a missing transpose; a"
        " shift over the rows.",
        {
            "unpaired_rows": "the model is right, the loss compares the wrong rows",
            "stochastic": "noise, not other rows",
        },
        says="the output of a row follows the values of other rows",
        remedy="keep the batch axis first: transpose before reshaping",
    ),
    "unpaired_rows": Entry(
        "A term compares the declared output with the batch, but not row by row: `[sample, 1]` against"
        " `[sample]` broadcasts to all pairs. Decided in float64: three permutations of the output's rows"
        " leave the term unchanged to 1e-6, at the model's outputs, at random ones of both signs and at the"
        " right ones (an absolute error far from its targets does not change at the first), it follows the output and, the outputs held, the batch, and it"
        " is smaller at the mean of all rows than at the right output of every row. If it is not smaller"
        " there, the term compares distributions (MMD, sorted values), and that is a note. A term on"
        " outputs alone (contrastive) or on batch statistics is silent. A loss that calls the parts of the"
        " model itself cannot be asked.",
        "`[sample, 1]` against `[sample]`, which broadcasts to all pairs.",
        {"mixed_rows": "the model itself mixes rows"},
        says="the term compares outputs with the batch, but not row by row",
        remedy="give both the same shape",
    ),
    "cut_encoder": Entry(
        "The main term (`objective`) follows the code, and none of its gradient reaches the bottleneck's"
        " layer or a layer called before it: `.detach()`, `no_grad`, rounding, a quantizer without a"
        " straight-through step. Decided by cutting the graph at the bottleneck's layer: on the data, with"
        " random values there, and under two random changes of all parameters, so that a decoder that"
        " starts at zero is no cut. Not said where no trainable parameter in the optimizer lies before the"
        " code (a frozen encoder). A penalty that trains the encoder does not change the finding. Healthy"
        " twins: straight-through quantizers, Gumbel-softmax, ReZero, a declared objective beside a"
        " decoder that only watches the code.",
        "`.detach()`, `torch.no_grad()`, rounding or a quantizer without a straight-through step between"
        " encoder and decoder.",
        {"no_gradient": "a term without any graph", "bypass": "the output does not follow the code"},
        source="van den Oord et al. 2017 (arXiv 1711.00937) for the straight-through quantizer",
        says="the main term does not train the encoder",
        remedy="remove the cut, or use a straight-through estimator",
    ),
    "unreached_parameter": Entry(
        "No term's gradient reaches a trainable parameter at any initialization, nor after 50 and 300"
        " steps, nor under two random changes of all parameters, and moving it changes a term: a codebook"
        " whose term is taken on the straight-through output, a threshold that is only compared with. If"
        " no term follows it either (a module that is never called, or one behind which a softmax over an"
        " axis of one number is always 1), it is a note. Silent for parameters"
        " that are frozen, not in the optimizer, written by the forward pass or by training without a"
        " gradient (moving averages), or that share their numbers with a parameter that has a gradient."
        " Not said where `zero_gradient`, `cut_encoder`, `constant_at_birth` or `dead_at_birth` explains"
        " it. Healthy twins: LoRA, ReZero, an EMA codebook, a mean teacher.",
        "A codebook whose term is taken on the straight-through output; a threshold that is only compared"
        " with; a module that is never called.",
        {"optimizer_misses_parameters": "has a gradient, but no optimizer", "cut_encoder": "the whole encoder"},
        says="a trainable parameter gets no gradient from any term",
        remedy="take the term from the parameter itself, or freeze the parameter",
    ),
    "unused_number": Entry(
        "A number that the signature of `losses` names changes no term and no gradient. Decided by up to"
        " five other values, on the data, at random layer outputs of three sizes, and after 50 and 300"
        " steps. Silent if the number changes what the loss writes into the model (the decay of an"
        " average), and for a loss that takes `**numbers`. Undecided if the loss reads it at an"
        " instruction that no probe reached (a warm-up of 1000 steps), or if a term without a gradient may"
        " be the one it weighs. Healthy twins: free bits below the floor, a margin that no row exceeds,"
        " the temperature of a surrogate gradient.",
        "`rho` in the signature and a constant in the body; a helper that ignores its argument.",
        {"negligible": "used, but with little effect"},
        says="a number of the loss changes nothing",
        remedy="use the number, or drop it from the signature",
    ),
    "constant_at_birth": Entry(
        "Every unit of the code is constant up to rounding (the range test of the diagnosis) in eval mode"
        " on up to 2048 rows, at every initialization (8 with three seeds), and after 300 steps in every"
        " training: a saturated tanh, inputs that vanish beside the biases. A code that training moves"
        " away from a constant start (a layer that starts at zero) is a note. A code of the ReLU family"
        " that fires on no row is `dead_at_birth`.",
        "A saturated tanh; inputs that vanish beside the biases.",
        {"dead_at_birth": "rectifiers that never fire", "symmetric_init": "units vary, but are copies"},
        says="every unit of the code is constant before training, and training does not change that",
        remedy="scale the inputs, or the weights before the activation",
    ),
    "diverges": Entry(
        "A training probe meets NaN or infinity, in a loss term or in its gradient. The finding names the"
        " term, the step (number of updates before it), the value one step earlier, and the parameter if"
        " the gradient alone is not finite. The probe stops there, and the ratios of later probes are"
        " undecided. Not said at step 0 of a term that `outside_domain` names.",
        "A learning rate that is too high; log or square root of a value that reaches 0.",
        {
            "outside_domain": "the values at which the term is not finite",
            "invalid": "the diagnosis of the layer afterwards",
        },
        says="training meets NaN or infinity within a few hundred steps",
        remedy="lower the learning rate, clip gradients, or repair the term that the finding names",
    ),
}
