//! The layer mathematics, held against naive loops, candle's own forward passes, and differences in float64.

use hindcast_model::ops;

#[test]
fn every_op_has_the_right_first_and_second_derivative() {
    let rows = ops::derivative_check().unwrap();
    for row in &rows {
        println!("{row}");
    }
    assert!(rows.len() >= 25);
    for row in &rows {
        assert!(row.first <= 1e-8 && row.second <= 1e-8, "{row}");
    }
}
