//! Text that `--help` prints below the options: exit codes, and the fields of `--json`. Scripts rely on these names.

pub(crate) const EXIT_CODES: &str =
    "Exit codes: 0 success; 1 failure; 2 wrong usage; 3 the trace has lost or corrupt data; 130 interrupted by Ctrl-C, 143 by SIGTERM (a second signal ends the process at once).
Results go to standard output, messages and progress to standard error. If the reader closes standard output, the exit code stays the same. If writing to it fails, for example on a full disk, exit code 0 becomes 1.";

/// The methods of `influence`, with their options.
pub(crate) fn methods() -> String {
    let mut out = "Values of --method, with the options that --method-set can set:\n".to_owned();
    for method in hindcast_analyzer::estimators::methods() {
        out += &format!("  {:<18} {}\n", method.name, method.about);
        if !method.options.is_empty() {
            let options: Vec<String> = method
                .options
                .iter()
                .map(|o| format!("{}={}", o.key, o.default))
                .collect();
            out += &format!("  {:<18} {}\n", "", options.join(" "));
        }
    }
    out + "For every method, the lowest scores belong to the most harmful examples. `hindcast methods NAME` describes a method's requirements, options and source."
}

pub(crate) const MERGE: &str = "\
`influence`, `experiment`, and `counterfactual` with --each or --scan, divide their work among processes: --shard I/N computes part I of N, with I from 0 to N - 1. `influence` divides the queries, `counterfactual` the retrainings. `experiment` with --out divides the seeds. `record --seeds` does so too, and needs no merge: each run is in a folder of its own. The processes may run at the same time or one after the other, on one machine or on many that share a file system:

  hindcast influence RUN --query validation:0..99 --out scores.csv --shard 0/4
  ...
  hindcast influence RUN --query validation:0..99 --out scores.csv --shard 3/4
  hindcast merge scores.csv.shards

The first process writes what the shards have in common to OUT.shards/shards.json. A process whose command asks for anything else is refused. Each shard is computed in a hidden folder, which gets the name shard-I when the shard is complete. A shard that is complete isn't computed again, so failed jobs can be repeated as they are. After a process was killed, the next one of the same shard continues a sweep where it was saved last (--checkpoint-every).

--shard auto is for array jobs of Slurm whose numbers have no gaps; it takes I and N from SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _MAX. --shard auto/N takes I, from 0, from SLURM_ARRAY_TASK_ID or, in an Indexed Job of Kubernetes, from JOB_COMPLETION_INDEX. For other schedulers, write I and N.

`merge` needs all shards. It compares their files with the digests in their records (shard-I/shard.json), which also say on which machine each was computed and when. The result has the same bytes as that of one command without --shard (but for the times in the rows of an experiment), if all shards were computed on one kind of processor; `merge` says if they weren't. It doesn't remove the shards. It reads a row of each table at a time, so memory doesn't grow with the number of examples.

--json prints an object with
  out, verb, of (number of shards), units (number of queries or retrainings), hosts, processors
  shards [{index, of, units, sittings [{host, processor, threads, began}], ended, files {NAME: digest}}]";

pub(crate) const INFLUENCE: &str = "\
Values of --query, each with its own column in the table:
  validation             the mean loss of a split: validation, train or test
  validation:3,17        the mean loss of these examples; the list may contain ranges A..B (B excluded)
  validation:0..99       one query per example of the range: validation:0, validation:1, ...
  each:validation:3,17   one query per example of a list; each:validation for the whole split
  mean:validation:0..99  one query: the mean loss over the range
  per-class              one query per class: the mean loss of its validation examples (per-class:test for the test split),
                         named validation:class-NAME; such a name also selects one class alone
  vector:FILE            the scalar product <u, parameters>, with u from a safetensors file
All queries share one sweep. The memory it needs is printed before it begins. If the memory is too small, the queries are answered in several passes over the steps, with the same bits.

--refine K works in three stages. The sweep ranks all examples. The K most harmful examples of each query get the accumulative estimate, which follows the effect of an example's absence through all batches (it differs from the sweep if an example occurs more than once in the window; it requires SGD without momentum and clipping, and a model without running statistics). The --refine-truth M most harmful of those are then left out and retrained, one at a time. The table gets the columns accumulative and counterfactual (the real change of the query), which are empty for all other examples.

--at POINT is the model that the queries are asked about. At a constant learning rate, the model after the last step is wherever the last batches moved it, and its loss depends most on the examples in those batches. The average of the last models is steadier, often has a lower loss, and agrees better with retraining:
  mean             the default: the mean of the models after each step of the last quarter of the epochs (rounded up); of a single epoch, of the newer half of its steps; if the run or the window contains fewer of these steps, of those (with --window last-epoch: mean:last-epoch)
  final            the model after the last step
  step:N           the model before step N, which later steps have no influence on
  mean:last-epoch  the mean of the models after each step of the last epoch
  mean:N-epochs    the same over the last N epochs
  mean:N-steps     the same over the last N steps
  ema:β            an exponential moving average, 0 < β < 1
The scores are the exact derivative of the averaged model's query. Running statistics (batch norm) are averaged with the same weights. The run must contain the averaged steps. `counterfactual` measures real changes at the same model, and `checkpoint --at` writes it. Methods that look at other models than the query's (tracin, outliers, random) ignore it, except for the query's value.

--retrain-check N compares the scores with real changes. After the sweep, it retrains in the same window without each of N examples, one at a time, and without three groups; the query is evaluated at the same model. The N examples are drawn from N equal parts of the ranking, one from each, so that they cover the whole range of scores. The groups have a hundredth of the examples each: the most harmful ones, random ones, and random ones of one class. The time is measured on a few steps and announced before the check starts. The results are in SCORES.check.json next to the table, for `report --removed`; the last lines give the verdict.
With several queries, each retrained model is evaluated for all of them, and each gets its own verdict. The N examples are divided among their rankings, there is one group of the most harmful examples per query, and the results are in SCORES.check-1.json and so on, one file per query in the order of the columns. At least 8 examples are needed to confirm the scores. (--check-seed is the seed of another check, that of recorded steps; --retrain-seed is the seed of this one.)

--tokens FILE is for models of token sequences whose loss function returns one term per token (`ops::token_cross_entropy`). The table has one row per token of each sequence in the window: index (the sequence), position, token (the id that the term predicts), text and influence (influence[QUERY] with several queries). A token's influence is the predicted change of the query if its term is left out of the loss; the tokens of a sequence add up to the sequence's influence. It takes no more time, and 8 bytes of memory per token and query. The most harmful and most helpful sequences are printed with marks around their heaviest tokens; `report --tokens FILE` shows them in the page. An id below 0, which is padding, has no row.

The table also has the predictions of that model for the examples with a score, as `predict --split train` writes them: predicted, probability (of the predicted class), label_probability and loss. They cost a forward pass over these examples, about a fifth of a sweep over one epoch; --no-predictions leaves them out. A table of several runs has none. With known true labels (--truth, or data.truth_file in the task), the table has the column true_label, and `scores` marks wrong labels.

Several runs: the scores are means over the runs, and the table has the columns influence_sd (standard deviation), influence_t (mean/(sd/√n)) and runs (n). With few runs, noise has a large t: one in twenty scores is beyond ±12.7 with 2 runs, ±4.3 with 3 and ±2.8 with 5. So rank by influence, and use influence_t to doubt a score. The runs must have the same examples in every split, the same classes, and a window of the same steps. They are scored one after the other; SCORES.run-1.csv and so on hold the scores of complete runs until the joined table is written, and --resume keeps them.

--mpi, in builds with the feature `mpi`, shares each step among the processes that `mpirun` started, for models whose steps are too slow on one machine. The process of rank 0 reads the run, decides, prints and writes. The others compute parts of its batches; they need the run and the data to set up the model, and read no steps. Models of tasks give the same bits as without --mpi, also with batch norm. Models of your own must not mix the examples of a batch; the last digits of their scores depend on the number of processes.

An interrupted sweep (Ctrl-C, kill, or a crash) leaves SCORES.sweep.safetensors next to the table. The same command with --resume continues from it, with the same bits.

--json prints an object with
  run, run_digest, window {start, end}, run_steps, method, engine, seconds
  at                     the model that the queries are asked about, as --at writes it
  runs                   only for several runs: a list of {run, run_digest, values}, with the value of each query; run is then null and
                         run_digest empty
  passes                 number of passes over the steps that the queries needed
  time                   seconds {replay, waiting, rest} of the sweep: in the engine, waiting for steps to be read, and the rest;
                         null for a method that is not a sweep, and for several runs
  examples, never_seen   number of training examples, and of those in no batch of the window
  queries                a list of {name, value, growth, trust, most_harmful, most_helpful};
                         growth {first, last, factor} of the adjoint's norm, null for a method that is not a sweep; the last two are lists of --top rows
                         with index, row, file, name, label, occurrences, influence (and runs, influence_sd, influence_t for several runs);
                         with --refine also refined (such rows, with accumulative and counterfactual) and, with at least 10 retrained
                         examples, agreement {examples, sweep {tau, error}, accumulative {tau, error}} with the real changes
  trust                  (of each query) {one_at_a_time, together}, each {verdict, reasons}: how far the scores can be trusted for examples that are
                         removed one at a time, and together; verdict is confirmed, not-checked, careful or doubtful
  retrain_check          with --retrain-check, {seed, announced_seconds, seconds, queries}; queries is a list of {query, file, sets}, and
                         sets a list of {chosen_as, without, predicted_change, real_change}
  notes                  remarks of the method on this computation
  table, metadata        files that were written; also picture, with --picture, and tokens, with --tokens";

pub(crate) const NAMES: &str = "\
--names FILE: a plain text file has one name per line; line n (counted from 0) names row n of the original file or, with --names-by index, example n of the training split (for `predict`, of its split). A .csv file (with a header) or .jsonl file may identify the example of each line in a column `row` or `index` (in upper or lower case; a column such as `row_number` is refused). The name is in the column `name`, in the only other column, or in the column given by --name-column.
If the examples come from several files whose rows are each counted from 0 (pool = \"all\"), a row number alone doesn't identify an example. Add a column `file` with the file names that the table has, or use --names-by index.";

pub(crate) const SCORES: &str = "\
--where compares a column with a value: =, !=, <, <=, >, >=. Numbers are compared by value. Other operators are refused; put a space before a value that begins with an operator. Texts (label, name, file) are equal only if all characters are, so label=03 doesn't match the label 3; <, <=, >, >= compare two texts as numbers if both are numbers. A row must meet all conditions. An empty value (influence=) matches rows that have no value.

The table may be larger than the memory: it is read row by row, and memory holds about 256 MiB of rows and one bit per example. --top and --bottom with a K of up to some 100,000 rows need nothing else. More rows are sorted through a temporary file without a name, of about the size of the table as Parquet: in the folder of --out, or without --out in that of TMPDIR (/tmp). --names holds all names in memory.

--json prints an object with
  table, metadata        the file, and the metadata stored next to it (null without metadata)
  rows_in_table, rows    number of rows in the file, and the selected rows with the table's columns";

pub(crate) const PREDICT: &str = "\
The model predicts as in an evaluation: running statistics, no dropout, no augmentation, no penalty. The table has one row per example: index (in the split), row and file (in the original data), name (of --names), label, predicted, probability (of the predicted class), label_probability and loss.
What `predicted` is follows from the labels:
  classes                the class with the largest output; probabilities are the softmax of the outputs (of one output z, 1/(1 + e^-z))
  numbers                the model's outputs in the unit of the labels, with spaces between several; probability and label_probability are empty.
                         With data.standardise_target, losses are those of the standardised target
  sequences of tokens    empty, because an example has no single label; the table has only the losses
A model of your own is read in the same way, by its outputs: one per class for class labels, or one per number. If its outputs are something else, such as its losses, predicted is empty.

--rows FILE predicts rows that the run's data doesn't have. They are read as the task's files are, with the columns, the words and the statistics of the training examples, so --data is needed, too. The file has the columns of the training files, in the same order. Labels are optional: leave out the column of labels (csv), the field of the label (documents) or the file of labels (npy, idx), or put the images into a folder without folders of classes. The table's index then counts the new rows, and --names names the rows of FILE; without labels, its columns label, label_probability and loss are empty. A category, a class or a shape that the task's data doesn't have is refused.

--json prints an object with
  run, run_digest, split, at, examples, mean_loss, table, seconds
  rows, labelled         the files of --rows, null without it (with it, split is null); whether the examples have labels: if not, mean_loss and the next four are null
  wrong, error, accuracy number of wrong predictions, and the shares of wrong and right ones; null unless the model is a classifier
  classes, confusion     names of the classes, and how often each was predicted: confusion[label][predicted]; null unless the model is a classifier
  root_mean_square       root of the mean squared difference between predictions and labels, in their unit; null unless labels are numbers
  target_scale           {mean, sd} by which the target is standardised; null if it isn't
  no_predictions         why the outputs tell no predictions; null if they do
  most_confident         only with --wrong: the --top most confident wrong predictions, or for a model that predicts numbers those with the largest loss, a list of rows with the table's columns";

pub(crate) const EXPLAIN: &str = "\
An explanation is the influence of every training example on the loss of the explained one. A training example with a negative influence pushed the model away from the label: the loss would be lower without it. One with a positive influence pushed it towards the label. A share is the example's part of the sum of its side. All explained examples share one sweep over the steps.

If the window is the whole run and its last epoch is less than half of it, the last epoch is swept first: a first answer appears after a few seconds, with the time that the other steps will take. Ctrl-C then keeps the first answer on the screen. --window last-epoch stops there. A long sweep for many examples is better done by `influence --query validation:0..99`, which saves its state and resumes.

--json prints an object with
  run, run_digest, at, window {start, end}, run_steps, engine, seconds
  explained              a list of {query, split, index, row, file, label, predicted, probability, label_probability, loss, wrong, away, towards, trust};
                         wrong is null unless the model is a classifier;
                         away and towards are {examples, total, heaviest}: number of training examples, the sum of their influence, and the --top
                         heaviest, a list of {index, row, file, name (with --names), label, occurrences, influence, share};
                         trust as in `influence --help`
  notes                  reasons to doubt these numbers; empty if there are none
  table, picture         files that were written, or null";

pub(crate) const DYNAMICS: &str = "\
The table has one row per use of an example, in the order of training: step, epoch, example (its index in the training split, the column `index` of a table of scores), loss (before the step's update, with the step's augmentation and dropout, without its weight), margin (the label's logit minus the largest other logit) and probability (of the label). margin and probability are empty if the labels aren't classes with an output each. Steps are written as they are walked, so memory doesn't grow with the number of steps.
`influence --method mean-loss|margin|forgetting|self-influence` sums the same walk up to one score per example.

--per-example writes one row per training example instead: index, row, label, occurrences (in the window), mean_loss, margin and probability (means over its uses), forgotten (how often it was wrong although it was right at its use before), epochs_since_forgotten (to the window's last epoch; the window's number of epochs if it was learned and kept, -1 if it was never right), self_influence (the sum of learning rate times weight times its squared gradient) and file. A cell is empty if it isn't defined. A wrong label typically has a high mean_loss and self_influence, a low margin and few epochs_since_forgotten; `influence --method mean-loss` and `self-influence` rank by minus the column. Each step costs a forward and a backward pass (with batch norm, a backward pass per example). The steps needn't reach the end of training, as for the table of uses.

--json prints an object with
  run, run_digest, window {start, end}, rows, table, seconds
  examples, never_seen   number of training examples, and of those in no batch of the window
  never_right, forgotten, kept   number of examples that were never right, that were wrong after they had been right, and that stayed right; null unless the model is a classifier
  forgetting_events      how often an example was wrong although it was right at its use before; null unless the model is a classifier
  notes                  reasons to doubt these numbers; empty if there are none";

pub(crate) const CLEAN: &str = "\
Forward passes of the training are replayed. A model that has learned little says little about a label, and a model that has memorised its labels hides the wrong ones. So the evidence comes from between. From epoch to epoch, fewer predictions change while a model learns, and more when it begins to memorise. Let E be the epoch, counted from 1, from which the average over four changes rises for the first time (the rule of Label Wave: Yuan, Feng and Liu 2024), or the last one. The evidence is epochs E/2 to 2E. --window chooses other steps. --method uses all steps, unless --window chooses some. An example's class probabilities are averaged over the steps of the evidence that used it; each of these models had seen the example only in earlier epochs. The suggested label is the class with the largest mean probability. The number of wrong labels is estimated as in confident learning (Northcutt, Jiang and Chuang 2021): it is the number of examples whose suggested label is another than the given one, with a mean probability of at least that of this class over the examples that have it as their label. It is the median over the epochs up to E; with --window, it comes from the means over the window. The issues are that many examples with another suggested label: those with the lowest margins, or with the lowest scores of --method or --scores. Then the validation examples (or the test examples) are predicted by models of the same steps. Two shares are estimated with 95 % intervals: that of their labels which the model predicts, and that of the issues with a right label. If the first can be below 55 %, the model is too weak, and the decisions say keep. If the second is above 50 %, relabelling breaks more labels than it mends, and the decisions say keep. If its interval contains 50 %, the held-out examples can't tell; the decisions then say relabel for the issues whose suggested label is more probable than the given one by 0.5 or more, and keep for the others. --decide overrides all this. With --retrain, relabelling is measured even if the decisions say keep. docs/math.md has the estimate. No query is asked unless by --method or --scores, so wrong labels in the validation split don't matter.

--issues has one row per training example that a step used: index, row, file, is_label_issue, label_score (the mean probability of the given label: low is suspicious), given_label, predicted_label, given_probability, predicted_probability, rank_score (the lowest is the most suspicious). The columns with the names of cleanlab's Datalab mean the same as there. What the table was made with (run, evidence, ranking, options) is in a file next to it, ISSUES.meta.json, so that `report` can say it.
--write-decisions has one row per issue, the most suspicious first: index, row, file, given, suggested, decision, given_probability, suggested_probability, name (of --names) and text (or the cells of the row). Edit `decision` (keep, relabel or drop) and `suggested` (any class), and remove or add rows. --decisions FILE then applies it; index and decision are required, and row, file and given are compared with the data. All rows that can't be applied are named at once.
--out and --out-data write the data in its own format. Rows that don't change keep their bytes and their order; a table keeps its header, comments, separators, quotes and line ends, an array its element type (texts get a wider one if a new label is longer). The sources csv, npy, idx and cifar10 can be written. Images stay where they are: --out lists the training images with their labels, and --out-data makes class folders of links. The original files are never changed. --out-labels works for every source, but can't leave out examples. Labels of the run's own --labels are in all of these files, too. --replace replaces files and folders of an earlier `clean`.
--retrain repeats the training from its first recorded step on the recorded batches, as recorded and with the first K decisions. A dropped example is taken out of its batches, and the mean is over the others. The first row, without a decision, is the control: it should have the losses that `predict` prints. It is trained with the kernels; if they end far from the recorded parameters and autodiff reproduces them, all rows are trained with autodiff, as for `counterfactual` (--engine chooses one). Exit code 1: the control doesn't reproduce the recorded run (NOT REPRODUCED), unless --unverified is given. Choose K by the validation loss if the labels of that split are right, and judge the result by the test split. --first K applies only the first K decisions.

--json prints an object with
  run, run_digest, examples, seconds
  issues, thresholds     number of issues; a list of {class, probability}, the mean probability of each class over its examples; null with --decisions
  evidence               {start, end, first_epoch, last_epoch, turn, epochs, reason}: the steps that were looked at, their epochs and E as recorded, from 0, the number of epochs that the run holds, and why these: memorising (the model began to memorise from E on), learning (it never did), few-epochs (too few to see it), only-late (the run doesn't hold its beginning) or asked (--window; without epochs); null with --decisions
  planted                {known, labels, found, issues, suggested}: number of training examples whose true label is known (--truth, or labels made wrong on purpose); of those with a wrong label; of these that are issues; of issues whose true label is known; and of those for which it is suggested; null if none is known
  suggestions            {split, examples, agreement, agreement_interval, called_wrong, called_wrong_count, right, right_interval, advice}: the held-out split and its size; the shares of its labels that the model predicts and that the rule calls wrong; the estimated share of issues with a right label; intervals are [low, high] of 95 %; advice is relabel, too-weak, mostly-right or unsure; null without held-out examples, without issues and with --decisions
  decisions              {relabel, drop, keep}: the number of each among those that are applied
  issues_table, decisions_file, cleaned_file, cleaned_folder, labels_file   the files; null if they weren't written
  retrained, retrained_with, at  with --retrain, a list of {decisions, losses}, beginning with 0 decisions; losses is a list of {split, examples, loss, error_rate}; the model that is measured
  control                with --retrain, {engine, reproduced, bit_identical, max_relative_error, kernels_apart}: how close the retraining without a decision came to the recorded parameters; kernels_apart is how far the kernels ended from them, if the runs were therefore repeated with autodiff
  notes                  what to know about these results; empty if there is nothing";

pub(crate) const SPIKES: &str = "\
A step has jumped if its batch loss is larger than m + K * 1.4826 * d: m is the median loss of the --before steps before it, d the median absolute deviation from m, and K is --above. 1.4826 d is the standard deviation of a normal distribution. A step with fewer than 20 steps before it in the window is not judged; with --before below 20, one with fewer than --before steps. A loss that is not finite is a jump. Recorded losses are in the metadata of the steps, so only the tensors of the shown steps and of the check of recorded steps are read. A damaged one is an error; damage of the tensors of other steps is not looked for (`hindcast verify` does).

An example's share of the jump is w (l - e) / (L - m): w is its weight in the batch, l its loss, e the loss per unit of weight at which the batch would have had the expected loss, and L the batch loss. The shares of a batch add up to 1. |gradient| is the norm of the gradient of l.

--json prints an object with
  run, run_digest, before, above, window {start, end}, seconds
  judged, found          number of steps that were judged, and of those that jumped
  recorded               whether the losses are the recorded ones; otherwise they were recomputed from the tensors of all steps
  spikes                 the --top largest jumps, a list of {step, epoch, loss, expected, deviations, examples};
                         examples is a list of {index, row, file, label, loss, share, gradient, margin, probability}, the largest share first;
                         numbers that are not finite or not defined are null
  notes                  reasons to doubt these numbers; empty if there are none";

pub(crate) const HISTORY: &str = "\
The table has one row per recorded step, also for steps without their tensors: step, epoch, learning_rate (of the first parameter group), batch_size, loss (of the batch, before the step's update, as the loop recorded it), then the columns that have a value: learning_rate[1] and so on (of the other groups), scalar[NAME] (what the loop recorded with the step), and
  --norms        parameter_norm (before the step), update_norm (of the change by the step). They read the tensors of all steps.
                   gradient_norm, if the rule is plain SGD: then it is (old - new parameters)/rate - decay * old parameters
  --gradients    gradient_norm for every rule: of the batch loss with its penalty, before clipping, without the optimizer's decay. Each step is
                   replayed, which costs a forward and a backward pass. As for `influence`, random steps are recomputed first (--check-seed, --unverified)
  --validation   validation_loss, and for classifiers validation_error (share of wrong predictions), of the model after the step, in evaluation mode:
                   after each epoch or every N steps (--every). Each measured model costs a forward pass over the validation split (--examples limits it)
Without these three, no tensors are read: damage of tensors isn't noticed (`hindcast verify` finds it). Steps whose metadata is damaged are left out, and the exit code is 3. An empty cell has no value; NaN and inf are values that are not finite.

--tensorboard DIR writes an event file to DIR, which `tensorboard --logdir DIR` shows: train/loss, train/learning_rate, train/epoch, train/batch_size, train/gradient_norm, train/parameter_norm, train/update_norm, validation/loss, validation/error, scalar/NAME. A run doesn't record when its steps were computed, so all events have the time at which the run was created: choose the axis \"Step\". TensorBoard stores float32. A folder with event files of another run or program is refused, because TensorBoard would mix the curves.

--json prints an object with
  run, run_digest, steps {start, end}, seconds
  rows, columns          number of steps in the history, and the names of the table's columns
  losses                 {known, not_finite, first_not_finite, first, last, smallest}: numbers of steps whose loss was recorded and whose loss is not finite,
                         the first such step; the last three are {step, loss} of finite losses, or null
  epochs                 a list of {epoch, steps, mean_loss, smallest_loss, largest_loss, learning_rate, gradient_norm, parameter_norm, update_norm,
                         held_out_loss, held_out_error}: means over the epoch's steps, the learning rate and the parameters' norm of its last step;
                         numbers that are not finite or not known are null
  held_out               {split, examples, of, losses} with --validation, losses being a list of {step, loss}; else null
  notes                  remarks on these numbers; empty if there are none
  damage, lost           descriptions of damaged metadata, and the number of steps that can't be read because of it
  table, tensorboard, picture   files that were written, or null";

pub(crate) const COMPARE: &str = "\
Settings are compared by the keys of the tasks (with the defaults of keys that aren't set), and by what else the runs say about themselves: rule and seed of own loops, fingerprints of the data, tensors, notes, what was kept, and the version that recorded them. Batches, learning rates and losses of all common steps are compared bit by bit, from the metadata. The parameters before each common step are compared from the first one on, until they differ. Then the distance of the models is measured at up to 20 ends of epochs.
If parameters, batch and learning rate of a step are the same and the parameters after it differ, the cause is in what a trace doesn't hold step by step: the update rule, the data or its labels, the random draws of dropout and augmentation, or rounding (another engine, processor or number of threads).
The losses of the splits are measured at the model after the last step and at the mean of the last models (as `predict --at final` and `--at mean`), and the validation loss after up to 20 epochs on up to 2000 examples. They need the model and the data of both runs.

--json prints an object with
  identical, first_step  whether the runs have the same steps and nothing that was compared differs; the first step at which anything differs, or null
  settings               a list of {setting, first, second}: the values in A and B, null where a run has none
  same_training_data     whether the fingerprints of the training examples are the same, or null if a run has none
  parting                {steps {start, end}, compared, batch, learning_rate, loss, parameters, incomparable, models}: the common steps and the number of
                         compared ones; the first differences, null if there is none: batch {step, examples, only_first, only_second, same_order},
                         learning_rate and loss {step, first, second}, parameters {step, values, different, norm, relative, largest, tensor};
                         incomparable is other-tensors, no-common-step or null; models is the number of models that were compared
  distances              a list of such differences of the parameters, at up to 20 common models
  runs                   a list of two: {run, run_digest, steps, rows, losses, epochs, held_out, split_losses, damage}, as in `history --help`;
                         split_losses is a list of {split, at, examples, loss, error}
  notes                  remarks, such as why there are no losses; empty if there are none
  picture                the file that was written, or null
  seconds";

#[cfg(feature = "record")]
pub(super) const TASK_NEW: &str = "\
Kinds of files:
  csv      tables. The separator, the header, the encoding, and what each column holds are found: numbers (with decimal points or
                   commas), categories, free text, dates, names of rows. Columns that a model can't learn from are left out, with the reason
  npy      numpy arrays: X.npy y.npy. Inputs have the shape (N, features) or (N, channels, height, width)
  images   a folder with one folder of PNG or JPEG images per class; a folder with the folders train, validation or val, and test, each with such
                   folders; or IDX files of images and labels
  text     documents in JSON lines (.jsonl), a table with a column of text (.csv), or plain text, whose next characters are predicted

The task reads the files from one data folder, the innermost one that holds them all. Names in the task are relative to it, and `--data` names it. Labels that are whole numbers or words are classes. Words are the names of their classes; where the labels are numbers, the task has a line that you complete (class_names or merge). Files of the same form beside the training files, with validation or test in place of train in their names, or before or behind the name (train.csv and test.csv; x.npy, y.npy and test-x.npy, test-y.npy; the folders train and test), are those splits; --validation and --test name others. --train-on-all draws no examples from the training files, so that `clean` can judge all of their labels. If the task then has no validation and no test examples, queries can only ask about training examples (--query train), and `clean` works as before, but its --retrain measures nothing. The model, the batch, the number of epochs and the learning rate are usual ones for such data: a start, to be changed.";

#[cfg(feature = "record")]
pub(super) const TASK_CHECK: &str = "\
A misspelt key is read as the key that it resembles, so that the rest can be checked too. The data is read as `record` reads it. If there is no problem, the first steps are trained and recorded in memory for about two seconds: nothing is written. The time, the memory and the stored size follow from these steps, and hold for this machine.

Exit code 1: there are problems. --json prints an object with
  task, problems         the task's name or file; a list of {line, key, problem}, the first two null if they aren't known
  warnings               what can be trained and is rarely meant: one class, nearly as many classes as examples, a diverging loss
  examples               {train, validation, test}, and shape, classes: of the data; null if it can't be read
  parameters, steps, steps_per_epoch   of the run; these and the following are null if there are problems
  measured_steps, seconds_per_step, seconds   the steps that were trained, their mean time, and that of all steps
  memory                 bytes: the most that this process has used
  raw_step, stored_step, disk, disk_peak, disk_free   bytes of a step, and on disk: at the end, at most, and free in the current folder";

#[cfg(feature = "record")]
pub(super) const RECORD_JSON: &str = "\
--json prints an object with
  run, steps, seconds    the folder, number of steps in the run, time taken
  resumed_at             the first step recorded by --resume, or null
  head_digest            keep it outside of the trace; `verify --head` compares the trace with it
  first_epoch_loss, last_epoch_loss   mean batch loss in the first and the last epoch that this command trained
  diverged_at            the first step whose loss isn't finite, or null
  written, skipped, thinned, lost, non_finite_steps   number of steps with each outcome
  lost_steps             ranges [start, end) of the steps lost after storage failed
  failure                why storage failed, or null
  raw_bytes, stored_bytes   size of the steps' tensors, and of the files that store them
  stalls, stalled_seconds   how often and for how long training waited for the recorder
Exit code 3: training was completed, but steps are missing from the trace (--on-error train-on after a storage failure, or --when-full skip).

--seeds A..B records runs that differ only in `train.seed`: initial weights, the order of the examples, dropout and augmentation. `data.seed` is the seed of the task for all of them, so they have the same split, the same flipped labels and the same generated digits. The runs train side by side, each on its share of the cores. A run that fails doesn't stop the others. The same command keeps complete runs, resumes interrupted ones and trains missing ones. --json then prints {runs, seconds}; runs is a list of the objects above, each with seed and trained (false for a run that was complete already, which has only run, steps and head_digest).";

pub(crate) const BOUNDS: &str = "\
Lemma 7 and Theorem 5 of Hara, Nitanda and Maehara (2019) assume a strongly convex loss, learning rates of at most 1/Λ and one pass over the data by plain SGD. Theorem 6 assumes a smooth loss, a constant learning rate and one pass. A run to which none of them applies is refused, with the numbers that violate the assumptions. Each example is left out once by retraining, in the float type of the run.

The table has one line per example: index, row, label, step (whose batch contains it), gradient (its norm at that step), lower and upper (h(Λ) and h(λ)), estimate (the norm of the forward estimate), real (the norm of the real change), gap (the norm of their difference), theorem5 (as printed in the paper), always (2 h(λ)), theorem6, file (of the row). Cells are empty if a theorem doesn't apply to the run.

Exit code 1: a proven bound is exceeded. --json prints an object with
  window {start, end}, run_steps, examples, rates [smallest, largest]
  constants              {lower, upper, lipschitz, gradient, input, proven}: λ, Λ, L, G, the largest input, and whether the model proves them
  inequality7, inequality8, theorem5, always, theorem6   {examples, broken, tightest} or null: number of examples, of those that exceed the bound, and the largest share of the bound that was reached
  without_lemma7, without_theorem6   why they don't apply to the run; empty if they do
  rounding               size of possible rounding errors; exceeding a bound by this much isn't counted
  notes                  reasons to doubt these numbers; empty if there are none
  table, seconds";

pub(crate) const EXPORT_JSON: &str = "\
--json prints an object with
  index                  the file steps.jsonl, with one line per step; scalars of one step that have the same name are a list
  steps {start, end}, files, bytes
A run that stores its examples (batch_of) also gets rows-SPLIT-N.safetensors and rows.jsonl, with one line per row.";

pub(crate) const VERIFY_JSON: &str = "\
--json prints an object with
  location, status       the run; finished, unfinished, open, or null if it cannot be opened
  segments, steps, steps_ok, gaps, bytes, head_digest
  findings, more         a list of {kind, severity, file, segment, step, tensors, text}, and the number of findings beyond the list; severity is note, warning or error
  head_matches           only with --head
  signature              {key, time, comment, holds, problem, timestamp} of a signed run: the id of the key that signed, the time by the signer's clock, the
                         signer's remark, whether the signature is that of --pubkey's owner (null without --pubkey), and why it isn't;
                         timestamp: the file of its time-stamp token, which isn't checked; absent if there is none
  replay                 only with --replay: {tolerance, update_tolerance, most_tolerance, median_tolerance, same_bits, other_processor, seed, replayable, span, drawn, pieces,
                         contradictions: [{about, step, steps, text}], steps: [{step, comparison, loss, update_error, update_tensor, by_rounding, cause,
                         trained_differs, state_error, statistics_agree, weights_agree, loss_agrees, passed}], passable, passes: [{step, loss,
                         loss_agrees, weights_agree, trained_differs, statistics_agree, passed}], note}; tolerance is null if another kind of
                         processor recorded the run; replayable is the number of steps whose next state is recorded and before which the
                         optimizer's state is known, passable that of other steps with parameters, of which only the pass is recomputed, span that
                         of all steps from the first recorded one to the end, drawn the number of steps drawn at random, or null
  never_trained          names of the parameter tensors that no step of the trace trained; absent if there are none
  dates                  dates of the run that can't be true; absent if there are none
  recovered              what a run that `recover` wrote lacks; absent for other runs
  derived                how the run was made from others, oldest first, in words; absent for recorded runs
  original               only with --original: {original_head, by, steps, gaps, steps_left_out, tensors_left_out, problems}: the head that the notes
                         name; how the run was made, a list of recovery, prune, compact and redact; the number of steps with tensors and without that
                         are the original's; what is left out; and differences that the notes don't explain (exit code 3 unless it is empty)";

pub(super) const REDACT: &str = "\
Left out: your notes, the program with its command line, the commit, the operating system; the task's name and description; the names of its files,
which get numbers; the names of its classes, if the labels are numbers; and digests that let anyone confirm a guessed row of the data.
What stays, because a replay needs it: all tensors and numbers of the steps, the numbers of the examples in each batch, the names of tensors, scalars
and the objective, the model, the optimizer and the seeds, columns and texts by which the data is read, the data's fingerprint, the processor, and
times. Who has the data can confirm it by the fingerprint, and a single row if all others are known. Names in data and model are yours to check.";

pub(crate) const DERIVE_JSON: &str = "\
The run is read and checked first; a damaged or open one is refused. The new run is checked and compared with it before it appears. Its notes name
the original: its head digest, its signer, and what was left out. `hindcast verify NEW --original RUN` compares them again.

--json prints an object with
  kind, original, written   prune, compact or redact, and the two runs
  original_head, original_bytes, original_segments, head_digest, bytes, segments, status
  steps, gaps            number of steps of the new run with tensors, and without
  steps_left_out, tensors_left_out, key_states_left_out
                         steps that are left out; steps that have lost their tensors; steps that no longer hold the optimizer's state
  left_out               what is left out, in words
  removed                what is left out of the description, by name; the new run doesn't contain these names
  renamed                only of redact: a list of [name, new name], one per file of the data
  remarks                what to know about the result";

pub(crate) const INFO_JSON: &str = "\
--json prints an object with
  run, status, steps, span {start, end}, ranges, epochs, gaps
  stored_bytes, raw_bytes, ratio, parameters, head_digest
  damage                 descriptions of what is damaged; empty if nothing is
  steps_ok               number of readable steps of a damaged run
  never_trained          names of the parameter tensors that no step of the trace trained; absent if there are none
  rows                   {distinct, stored, raw_bytes, validation, test}, only if the run identifies its examples by rows
  encrypted              whether the run is encrypted
  info, segments, manifest   as in the run's files, decrypted";

pub(crate) const REPORT: &str = "\
The page is one file that loads nothing from the network: open it from disk, mail it, or store it next to the run. Its sections, of which those without content are left out:
  answer                 how many labels are probably wrong (with --issues), how many examples harm, the worst ones, and how far to believe it
  the run                what was recorded, and its digests
  trust                  two verdicts in words, for examples removed one at a time and together; results of retraining, growth of the adjoint
  training, influence    the recorded losses, and the validation loss (or the test loss) after at most 20 epochs on at most 2000 examples; the distribution of the scores
  examples               the --top most harmful and most helpful ones of each table: pictures, or rows with their values
  explained              of each query about one example, such as validation:17: its prediction, and what pushed it towards and away from its label
  predictions            of the validation split (or test, or train), at the model of the first table: the confusion matrix and the most confident mistakes
  issues                 the --top most suspicious labels of a table of label issues (clean, then --issues issues.csv), with the suggested ones;
                         among the examples, those that are label issues are marked
  epochs, classes        sums of harmful and helpful influence by epoch (influence --per-epoch) and by class
  retraining             predicted and real changes (counterfactual --each or --scan with --out FILE.json, then --removed FILE.json)
  reproduce              the commands that produce the page again

--json prints an object with
  report, bytes, run_digest
  damaged                descriptions of what is damaged in the trace; the exit code is 3 unless it is empty
  predictions            {split, at, examples, mean_loss, wrong}; null without data, and with --no-predictions
  held_out               {split, examples, of, losses} of the training curve: the split, the number of its examples that were used and that it has, and a
                         list of {step, loss}; null without data, and with --no-validation-loss
  label_issues           {table, judged, issues}: how many labels were judged, and how many are probably wrong; null without --issues
  views                  a list of {table, query, method, verdict, trust, growth, reasons};
                         trust is {one_at_a_time, together}, each {verdict, reasons}; verdict is confirmed, not-checked, careful or doubtful,
                         and that of the view is the worse of the two; growth is the factor by which the adjoint's norm grew";

pub(crate) const COUNTERFACTUAL: &str = "\
Exit code 1: retraining with all examples doesn't reproduce the recorded run (NOT REPRODUCED), unless --unverified is given.
--scan 10,30,100 SCORES retrains without the 10, the 30 and the 100 most harmful examples of the table, side by side on all cores. It prints the predicted and the real change, their ratio, and the losses and errors of the validation and test splits for each number, so that you see where to stop. The line `lowest` names the number at which a loss is lowest.
--top K SCORES refuses a table that doesn't belong to the run: its metadata names another run (unless --other-run is given), it has no rows, an example occurs twice or isn't in the data, or its labels, rows or files differ from the data. A table without the file SCORES.meta.json next to it is accepted with a warning, because nothing says which run it belongs to. A table of another window is accepted, and both windows are printed. --scan does the same. The examples are ranked by the table's column for --query, or by its only column; a table with several columns and none for --query is refused.
--without FILE has one example index per line; empty lines and lines that begin with # are skipped. An example that is listed twice is left out once, with a warning.

--json prints an object with
  query, at, window {start, end}, without the query, the model that it is asked about, the steps, and the number of examples left out (with --scan, the largest)
  value_with_everyone, value_without, real_change, predicted_change, predicted_from
                         the query after retraining with all examples, and without those left out; the difference; the prediction and its source,
                         both null if the update rule has no adjoint (Lion), as the predicted_change of every set is then.
                         With --each and --scan, value_without, real_change and predicted_change are null; `sets` has them
  notes                  reasons to doubt these numbers; empty if there are none
  first_order_change     <u, parameters without the examples minus parameters with them>: the part of the real change that is first order in the
                         real change of the parameters; the rest is due to the query's curvature; null with --each and --scan
  trust                  {one_at_a_time, together}, each {verdict, reasons}: how far these retrainings confirm the prediction;
                         verdict is confirmed, not-checked, careful or doubtful; null without predictions
  sets                   a list of {without, places, predicted_change, real_change, value_without, losses, at_end}, one per retraining;
                         places is a list of {row, file}, one per example of `without`;
                         at_end {queries, losses} after the last step, if the query is asked about an average
  scan                   with --scan, a list of {examples, predicted_change, real_change, ratio, losses}, one per number; else null
  retraining             what was done: queries, at, window {start, end}, removal, denominators;
                         everyone {without, queries, losses, at_end}, the retraining with all examples, and outcomes, a list of the same for each set;
                         reproduction {bit_identical, max_relative_error, …} and drift {of_movement, by_rounding}: how far the retraining with all examples ends
                         from the recorded parameters, by tensor, and relative to the way of the training (by_rounding is null if it wasn't measured);
                         kernels_apart: how far it ended with the kernels, if everything was therefore retrained with autodiff; else null";

pub(super) const SIGN: &str = "\
The run's files are read and checked before it is signed. The signature covers manifest.json, which lists every other file of the run
with its digest. It is a file as minisign writes it, so this checks it, too:
  minisign -V -m RUN/manifest.json -p KEY.pub

--json prints an object with
  run, head_digest       the run that was signed, and the digest of its manifest
  key                    id of the key, 16 hexadecimal digits
  time, comment          the time by this machine's clock, and the remark; both are part of what is signed
  signature              the file that was written";

pub(super) const RECOVER: &str = "\
Exit codes: 0 nothing was lost; 1 failure, and nothing was written; 2 wrong usage; 3 something was lost, as reported. The damaged run is only read.

--json prints an object with
  original, original_status, original_head   the run that was read; the last two are null if its manifest is lost
  recovered, status, head_digest             the run that was written
  steps, gaps, segments, bytes               steps with and without tensors, and its size
  losses                                     a list of {kind, steps {start, end}, file, tensors, why, others}, empty if nothing was lost; `why` is the
                                             cause for the first step, `others` the number of different causes for later steps
  remarks                                    findings that caused no loss";

#[cfg(feature = "record")]
pub(super) const BENCH: &str = "\
Inputs and labels are generated in the task's shapes, without augmentation and micro-batches. The operations timed are
  training step          a whole step of the trainer: batch, forward pass, backward pass, update
  replay step, ENGINE    all per-example scalar products and Hessian-vector products of one recorded step, for Q queries
  gradient, ENGINE       loss and gradient of the batch
  decoding               one step of a recorded run in memory, newest first
GFLOP counts the matrix products that the layers need (convolutions and linear layers; a multiplication and an addition count as two operations): 3 forward passes for a training step, 1 + 6 Q for a replay step (1 more in layers whose input needs its own gradient), less in the first layer. An engine may do more than is needed. The peak is the rate of the gemm crate with the same number of threads on 1024 x 1024 matrices.
Run nothing else on the machine at the same time.

--json prints an object with
  task, batch, queries, threads, precision, parameters, peak_gflops
  rows                   a list of {name, median_ms, min_ms, gflop, gflops, share_of_peak}; the last three are null for decoding";
