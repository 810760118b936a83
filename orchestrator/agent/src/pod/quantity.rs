//! Kubernetes quantities as numbers. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use api::quantity::Quantity;

/// A quantity in thousandths, rounded up; none when it does not read.
pub fn milli(text: &Text) -> Option<i128> {
    let quantity = Quantity::parse(&text.0).ok()?;
    Some(quantity.wide_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_in_every_notation() {
        let cases = [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("2k", 2_000_000),
            ("1e3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("5u", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(milli(&Text(text.to_owned())), Some(expected), "{text}");
        }
        assert_eq!(milli(&Text("ten".to_owned())), None);
    }
}
