//! Amounts of money with their currency, added without rounding.

use std::fmt;
use std::str::FromStr;

const SCALE: usize = 9;
const UNIT: i128 = 1_000_000_000;
/// The largest amount, in units: more than anything costs, and small enough to be added.
const MAX_UNITS: i128 = 1_000_000_000_000;

/// An amount that is not negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Money {
    currency: String,
    nanos: i128,
}

/// Text that is no amount such as `12.50 EUR`, or one that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an amount such as `12.50 EUR`, not negative and at most {MAX_UNITS}")]
pub struct NotMoney;

/// Whether it is a code as ISO 4217 has them, such as `EUR`.
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase())
}

impl Money {
    /// An amount in whole units of a currency and billionths of one.
    ///
    /// # Errors
    /// When it is negative or too large, or the currency is no code of three letters.
    pub fn new(currency: &str, units: i64, nanos: i32) -> Result<Self, NotMoney> {
        let total = i128::from(units) * UNIT + i128::from(nanos);
        let fits = (0..UNIT).contains(&i128::from(nanos)) && (0..=MAX_UNITS * UNIT).contains(&total);
        match fits && is_currency(currency) {
            true => Ok(Self { currency: currency.to_owned(), nanos: total }),
            false => Err(NotMoney),
        }
    }

    /// The currency's code.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// Nothing, in the same currency.
    #[must_use]
    pub fn zero(&self) -> Self {
        Self { currency: self.currency.clone(), nanos: 0 }
    }

    /// Whole units.
    pub fn units(&self) -> i64 {
        i64::try_from(self.nanos / UNIT).unwrap_or(i64::MAX)
    }

    /// Billionths of a unit beside the whole ones.
    pub fn nanos(&self) -> i32 {
        i32::try_from(self.nanos % UNIT).unwrap_or_default()
    }
}

/// Two decimals at least.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:09}", self.nanos % UNIT);
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{}.{} {}", self.nanos / UNIT, &fraction[..kept], self.currency)
    }
}

impl FromStr for Money {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (amount, currency) = text.split_once(' ').ok_or(NotMoney)?;
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > SCALE {
            return Err(NotMoney);
        }
        let nanos = format!("{fraction:0<SCALE$}").parse().map_err(|_| NotMoney)?;
        Self::new(currency, whole.parse().map_err(|_| NotMoney)?, nanos)
    }
}

/// The sum of amounts as [`Money`] writes them; empty ones are not known and left out. Empty when none is known, and when
/// they are of several currencies, so that they have no sum.
pub fn sum<'a>(amounts: impl IntoIterator<Item = &'a str>) -> String {
    let mut total: Option<Money> = None;
    for amount in amounts.into_iter().filter_map(|text| text.parse::<Money>().ok()) {
        match &mut total {
            Some(total) if total.currency != amount.currency => return String::new(),
            Some(total) => total.nanos += amount.nanos,
            None => total = Some(amount),
        }
    }
    total.map(|total| total.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_add_exactly_in_one_currency() {
        assert_eq!(sum(["0.1 EUR", "0.2 EUR", "12.50 EUR", ""]), "12.80 EUR");
        assert_eq!(sum(["1 USD", "0.123456789 USD"]), "1.123456789 USD");
        assert_eq!((sum([""]), sum(["1 EUR", "1 USD"])), Default::default());
        assert_eq!(sum(["", "0.00 EUR"]), "0.00 EUR", "what costs nothing is known to");
        let money: Money = "12.50 EUR".parse().unwrap();
        assert_eq!(money.zero().to_string(), "0.00 EUR");
    }

    #[test]
    fn amounts_are_written_and_read_back() {
        for (text, parts) in [
            ("12.50 EUR", ("EUR", 12, 500_000_000)),
            ("0.001 USD", ("USD", 0, 1_000_000)),
            ("7.00 CHF", ("CHF", 7, 0)),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!((money.currency(), money.units(), money.nanos()), parts);
            assert_eq!(money.to_string(), text);
            assert_eq!(Money::new(parts.0, parts.1, parts.2), Ok(money));
        }
        for wrong in
            ["12.50", "-1 EUR", "1.0000000001 EUR", "x EUR", ". EUR", "1 eur", "1 EURO", "9999999999999 EUR"]
        {
            assert_eq!(wrong.parse::<Money>(), Err(NotMoney), "{wrong}");
        }
        for (units, nanos) in [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(Money::new("EUR", units, nanos), Err(NotMoney));
        }
    }
}
