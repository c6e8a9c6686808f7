//! Lists that come in pages.

/// Gathers pages until there are enough results or no more pages.
macro_rules! pages {
    ($limit:expr, |$size:ident, $token:ident| $call:expr, $field:ident) => {{
        let mut all = Vec::new();
        let mut $token = String::new();
        loop {
            let $size = i32::try_from(($limit - all.len()).min(1000))?;
            let page = $call.await?.into_inner();
            all.extend(page.$field);
            $token = page.next_page_token;
            if $token.is_empty() {
                break all;
            }
            if all.len() >= $limit {
                eprintln!("there are more than {}; --limit shows more", all.len());
                break all;
            }
        }
    }};
}
pub(super) use pages;

/// All of a list whose request has the fields that lists have (AIP-158, AIP-160), up to the limit.
macro_rules! list_all {
    ($list:expr, $parent:expr, $service:expr, $method:ident, $package:ident :: $request:ident, $field:ident) => {{
        let (mut service, parent) = ($service, $parent);
        $crate::cli::page::pages!(
            $list.limit,
            |page_size, page_token| {
                #[allow(clippy::needless_update, reason = "some lists have no more fields")]
                let request = $package::$request {
                    parent: parent.clone(),
                    page_size,
                    page_token,
                    filter: $list.filter.clone(),
                    order_by: $list.order_by.clone(),
                    ..Default::default()
                };
                service.$method(request)
            },
            $field
        )
    }};
}
pub(super) use list_all;
