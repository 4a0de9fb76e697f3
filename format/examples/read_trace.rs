//! Reads a trace without candle and prints its tensors and how far each step moved the parameters:
//! `cargo run -p hindcast-format --example read_trace -- RUN`.

use hindcast_format::{FormatError, Trace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: read_trace RUN")?;
    print_trace(&path)?;
    Ok(())
}

fn print_trace(path: &str) -> Result<(), FormatError> {
    let trace = Trace::open(path)?;
    // A damaged run can still be opened. Its problems are listed here, and reading a lost step is an error.
    for problem in trace.problems() {
        eprintln!("{problem}");
    }
    for tensor in trace.layout().tensors() {
        println!("{:?} {} {:?}", tensor.role, tensor.name, tensor.shape);
    }

    // The walk goes backward, so the state of the previous iteration is the state after the current step. A walk holds one step in memory.
    let mut after = match trace.final_state()? {
        Some((state, _)) => values(&state),
        None => Vec::new(),
    };
    let mut steps = trace.reverse(trace.span());
    while let Some(step) = steps.next()? {
        let before = values(step.state);
        let moved: f64 = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (b - a).powi(2))
            .sum();
        print!("step {} of epoch {}: ", step.meta.step, step.meta.epoch);
        print!("{} examples, ", step.meta.indices.len());
        if after.is_empty() {
            println!("the newest step of an open run");
        } else {
            println!("parameters moved by {:.3e}", moved.sqrt());
        }
        after = before;
    }
    Ok(())
}

/// The parameters of a state as one vector, whatever their element type.
fn values(state: &hindcast_format::State) -> Vec<f64> {
    let mut out = Vec::new();
    state.parameters_f64(&mut out);
    out
}
