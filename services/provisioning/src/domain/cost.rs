//! Monthly costs as decimals, added without rounding.

const SCALE: u32 = 6;

/// A decimal such as `12.50` in millionths; `None` when it is not one. Empty is zero.
pub fn parse(text: &str) -> Option<i128> {
    if text.is_empty() {
        return Some(0);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 12
        || fraction.len() > SCALE as usize
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let fraction = format!("{fraction:0<6}");
    Some(whole.parse::<i128>().ok()? * 10_i128.pow(SCALE) + fraction.parse::<i128>().ok()?)
}

/// As it is shown: two decimals at least, empty for nothing.
pub fn format(millionths: i128) -> String {
    if millionths == 0 {
        return String::new();
    }
    let unit = 10_i128.pow(SCALE);
    let fraction = format!("{:06}", millionths % unit);
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{}.{}", millionths / unit, &fraction[..kept])
}

/// The sum; what is not a decimal counts as nothing.
pub fn sum<'a>(costs: impl IntoIterator<Item = &'a str>) -> String {
    format(costs.into_iter().filter_map(parse).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_exactly() {
        assert_eq!(sum(["0.1", "0.2", "12.50", ""]), "12.80");
        assert_eq!(sum(["1", "0.123456"]), "1.123456");
        assert_eq!(sum([""]), "");
        assert_eq!((parse("-1"), parse("1.1234567"), parse("x")), (None, None, None));
    }
}
