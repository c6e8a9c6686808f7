//! What the service says.

/// The greeting at the top of the page.
pub const GREETING: &str = "Hello from a paved road";

/// Renders the page.
pub fn render(name: &str, version: &str, environment: &str, visits: Option<u64>) -> String {
    let counter = match visits {
        Some(n) => format!("visits: {n}"),
        None => "visits: no database".to_string(),
    };
    format!("{GREETING}\nname: {name}\nversion: {version}\nenvironment: {environment}\n{counter}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_everything() {
        let page = render("shop", "1", "staging", Some(7));
        for part in ["name: shop", "version: 1", "environment: staging", "visits: 7"] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }

    #[test]
    fn without_a_database_the_page_says_so() {
        assert!(render("shop", "1", "staging", None).contains("no database"));
    }
}
