//! What `--help` adds below the options: exit codes, and the fields that `--json` prints. Scripts rely on these names.

pub(crate) const EXIT_CODES: &str =
    "Exit codes: 0 fine; 1 failed; 2 wrong usage; 3 the trace has lost or corrupt data;
130 interrupted by Ctrl-C, 143 by a plain kill (a second one ends at once).
Results go to standard output, talk and progress to standard error. A closed or full standard output
changes no code but 0: where it is full, the code is 1.";

/// The methods of `influence`, with the keys that can be set.
pub(crate) fn methods() -> String {
    let mut out = "--method, with the options that --method-set takes:\n".to_owned();
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
    out + "Scores of every method sort alike: the most harmful examples have the lowest. `hindcast methods NAME` says what a method takes, what its options mean and where it comes from."
}

pub(crate) const INFLUENCE: &str = "\
--query, each with a column of its own in the table:
  validation             the mean loss of a split: validation, train or test
  validation:3,17        the mean loss of these examples; ranges A..B (B excluded) may be among them
  validation:0..99       a query an example of the range: validation:0, validation:1, ...
  each:validation:3,17   a query an example of any list; each:validation for all of the split
  mean:validation:0..99  one query, the mean over the range
  per-class              a query a class: the mean loss of its validation examples (per-class:test for the test split),
                         called validation:class-NAME; one of them may be asked for by that name
  vector:FILE            u in <u, parameters> from a safetensors file
Many queries share a sweep. What they take is said before it begins; where the memory isn't enough they are answered in several passes over the steps, to the same bits.

--refine K climbs a ladder: the sweep ranks all examples; the K most harmful of each query get the accumulative estimate, which follows each one's absence through the batches without it (it differs from the sweep where an example recurs in the window; SGD without momentum and clipping, models without running statistics); and the --refine-truth M most harmful of those are left out for real, one at a time. The table gets the columns accumulative and counterfactual (the real change of the query), empty for everyone else.

An interrupted sweep (Ctrl-C, kill, or a crash) leaves SCORES.sweep.safetensors beside the table. The same command with --resume goes on from it, to the same bits.

--json prints an object with
  run, run_digest, window {start, end}, run_steps, method, engine, seconds
  passes                 how often the steps were walked for all queries
  time                   seconds {replay, waiting, rest} of the sweep: in the engine, waiting for steps to be read, all else;
                         null for a method that is no sweep
  examples, never_seen   training examples, and those in no batch of the window
  queries                a list of {name, value, growth, most_harmful, most_helpful};
                         growth {first, last, factor} of the adjoint's norm, null for a method that is no sweep; the last two are lists of --top rows with
                         index, row, file, name, label, occurrences, influence;
                         with --refine also refined (such rows with accumulative and counterfactual) and, from 10 retrained
                         examples on, agreement {examples, sweep {tau, error}, accumulative {tau, error}} with the real changes
  notes                  what the method says of how it went
  table, metadata        files that were written; picture where one was asked for";

pub(crate) const NAMES: &str = "\
--names FILE: a plain text file holds a name a line; line n (counted from 0) names row n of the original file, or example n of the training split with --names-by index. A .csv (with a header) or .jsonl may say which example a line is about in a column `row` or `index` (in capitals or small letters; a column such as `row_number` is refused). The name is in the column `name`, in the only other one, or in the one that --name-column names.
If the examples come from several files that are each counted from 0 (pool = \"all\"), a row number alone doesn't identify an example. Add a column `file` with the file names of the table, or use --names-by index.";

pub(crate) const SCORES: &str = "\
--where compares a column with a value: =, !=, <, <=, >, >=; numbers by value. Other operators are refused; a value that begins with one needs a space before it. Texts (label, name, file) are equal where they have the same letters, so label=03 isn't label=3; <, <=, >, >= compare them as numbers where both are numbers. Several conditions hold together; an empty value (influence=) means that there is none.

--json prints an object with
  table, metadata        the file, and what stands beside it (null where nothing does)
  rows_in_table, rows    how many rows the file has, and those that were chosen, with the table's columns";

#[cfg(feature = "record")]
pub(super) const RECORD_JSON: &str = "\
--json prints an object with
  run, steps, seconds    the folder, steps of the run, time taken
  resumed_at             the first step recorded by --resume, or null
  head_digest            keep it outside of the trace: `verify --head` checks it
  written, skipped, thinned, lost, non_finite_steps   steps by what became of them
  lost_steps             ranges [start, end) of the steps lost after storage failed
  failure                why storage failed, or null
  raw_bytes, stored_bytes, stalls, stalled_seconds
Exit code 3 where steps are missing from the trace (--on-error train-on after a failure of storage, --when-full skip): training went on to its end.";

pub(crate) const BOUNDS: &str = "\
Lemma 7 and Theorem 5 of Hara, Nitanda and Maehara (2019) are about strongly convex losses, learning rates of at most 1/Λ and one pass over the data by plain SGD; Theorem 6 about any smooth loss, a constant rate and one pass. A run that breaks what they assume is refused, with the numbers. Each example is really left out once, in float64 where the run is.

The table has one line per example: index, row, label, step (whose batch holds it), gradient (its norm there), lower and upper (h(Λ) and h(λ)), estimate (the norm of the forward estimate), real (the norm of the real change), gap (the norm of their difference), theorem5 (as printed), always (2 h(λ)), theorem6, file (that the row is from). Cells are empty where a theorem says nothing of the run.

Exit code 1 where a proven bound is exceeded. --json prints an object with
  window {start, end}, run_steps, examples, rates [smallest, largest]
  constants              {lower, upper, lipschitz, gradient, input, proven}: λ, Λ, L, G, largest input, whether the model proves them
  inequality7, inequality8, theorem5, always, theorem6   {examples, broken, tightest} or null: how many exceed it, and how much of it is used at most
  without_lemma7, without_theorem6   why they say nothing of the run; empty where they do
  rounding               what rounding may move, which isn't counted as exceeding
  notes                  reasons to doubt these numbers; empty if there are none
  table, seconds";

pub(crate) const EXPORT_JSON: &str = "\
--json prints an object with
  index                  the file steps.jsonl, a line a step
  steps {start, end}, files, bytes";

pub(crate) const VERIFY_JSON: &str = "\
--json prints an object with
  location, status       the run; finished, unfinished, open, or null if it cannot be opened
  segments, steps, steps_ok, gaps, bytes, head_digest
  findings, more         a list of {kind, severity, file, segment, step, tensors, text}, and the number of further findings; severity is note, warning or error
  head_matches           where --head was given
  replay                 where --replay was given: {tolerance, steps: [{step, comparison, loss, trained_differs, passed}], note}";

pub(crate) const INFO_JSON: &str = "\
--json prints an object with
  run, status, steps, span {start, end}, ranges, epochs, gaps
  stored_bytes, raw_bytes, ratio, parameters, head_digest
  damage                 what is damaged, in words; empty where nothing is
  steps_ok               number of readable steps of a damaged run
  info, segments, manifest   as they are in the run's files";

pub(crate) const REPORT: &str = "\
The page is one file that fetches nothing: open it from disk, mail it, keep it beside the run. It shows
  the run                what was recorded, and its digests
  trust                  how the adjoint grew, what retraining said, and a verdict in words
  training, influence    the recorded losses; how many examples have which score
  examples               --top most harmful and most helpful ones of each table: pictures, or rows with their values
  epochs, classes        when and where harm and help came about (epochs: influence --per-epoch)
  retraining             predicted against real changes (counterfactual --each --out FILE.json, then --removed FILE.json)
  reproduce              the commands

--json prints an object with
  report, bytes, run_digest
  damaged                what of the trace is damaged, in words; the exit code is 3 unless it is empty
  views                  a list of {table, query, method, verdict, growth, reasons};
                         verdict is confirmed, plausible, careful or doubtful; growth the factor of the adjoint's norm";

pub(crate) const COUNTERFACTUAL: &str = "\
--top K SCORES is refused where the table doesn't fit: its metadata names another run (unless --other-run is given), it has no rows, has an example twice or one that the data lacks, or says other labels, rows or files than the data. A table without the file SCORES.meta.json beside it is taken with a warning: nothing says which run it is about. A table of another window is taken, and both windows are said. The examples are ranked by the table's column for --query, or by its only column; a table with several columns and none for --query is refused.
--without FILE holds the index of one example per line; empty lines and lines that begin with # are skipped. An example that is listed twice is left out once, with a warning.

--json prints an object with
  query, window {start, end}, without     what was asked, and how many examples were left out
  value_with_everyone, value_without, real_change, predicted_change, predicted_from
                         with --each the three in the middle are null, and `sets` has them
  notes                  reasons to doubt these numbers; empty if there are none
  first_order_change     <u, parameters without less parameters with everyone>: what of the real change is first order in how the
                         parameters really moved, the rest being the query's curvature; null with --each
  sets                   a list of {without, places, predicted_change, real_change, value_without, losses}, one per retraining;
                         places is a list of {row, file}, one per example of `without`
  retraining {queries, window, removal, denominators, everyone, reproduction, outcomes}";

pub(super) const RECOVER: &str = "\
Exit codes: 0 nothing was lost; 1 failed, and nothing was written; 2 wrong usage; 3 something was lost, and the report says what. The run itself is only read.

--json prints an object with
  original, original_status, original_head   the run that was read; null where its manifest is lost
  recovered, status, head_digest             the run that was written
  steps, gaps, segments, bytes               steps with and without tensors, and its size
  losses                                     a list of {kind, steps {start, end}, file, tensors, why, others}, empty if nothing was lost; `why` is the
                                             cause for the first step, `others` the number of other causes for later steps
  remarks                                    what was met and cost nothing";

#[cfg(feature = "record")]
pub(super) const BENCH: &str = "\
Inputs and labels are drawn by code in the task's shapes; augmentation and micro-batches are left out. Timed are
  training step          the trainer's own: batch, forward, backward, update
  replay step, ENGINE    all per-example products and Hessian-vector products of one recorded step, for Q queries
  gradient, ENGINE       loss and gradient of the batch
  decoding               one step of a recorded run in memory, newest first
GFLOP counts the matrix products that the layers need (convolutions and linear layers; a multiplication and an addition are two): as much as 3 forward passes a training step, 1 + 6 Q a replay step (1 more in layers whose input's own gradient is read), less in the first layer. An engine may do more than it needs. The peak is what the gemm crate reaches with as many threads on 1024 x 1024 matrices.
Let nothing else run meanwhile.

--json prints an object with
  task, batch, queries, threads, precision, parameters, peak_gflops
  rows                   a list of {name, median_ms, min_ms, gflop, gflops, share_of_peak}; the last three are null for decoding";
