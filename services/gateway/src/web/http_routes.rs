//! Which method a path means.

use http::Method;

use crate::routes::binding::Binding;

/// Every way to call a method over HTTP.
#[derive(Debug)]
pub(crate) struct HttpRoutes<T>(Vec<(Binding, T)>);

/// What stands at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'r, 'p, T> {
    /// A way to call something, with what the variables of the path stand for.
    Way(usize, &'r T, Vec<&'p str>),
    /// Something that is called with these verbs.
    Others(Vec<Method>),
    /// Nothing.
    Nothing,
}

impl<T> HttpRoutes<T> {
    pub(crate) fn new(mut routes: Vec<(Binding, T)>) -> Self {
        // What ends with a verb, such as `…/things/a:start`, is not the thing `a:start`.
        routes.sort_by_key(|(binding, _)| (binding.template.verb.is_none(), binding.to_string()));
        Self(routes)
    }

    pub(crate) fn binding(&self, at: usize) -> Option<&Binding> {
        self.0.get(at).map(|(binding, _)| binding)
    }

    /// Looks a path up, as it is written in the request.
    pub(crate) fn find<'p>(&self, verb: &Method, path: &'p str) -> Found<'_, 'p, T> {
        let mut others: Vec<Method> = Vec::new();
        let mut custom = false;
        for (at, (binding, target)) in self.0.iter().enumerate() {
            if custom && binding.template.verb.is_none() {
                break;
            }
            let Some(captured) = binding.template.capture(path) else { continue };
            custom |= binding.template.verb.is_some();
            if binding.verb == *verb {
                return Found::Way(at, target, captured);
            }
            if !others.contains(&binding.verb) {
                others.push(binding.verb.clone());
            }
        }
        if others.is_empty() { Found::Nothing } else { Found::Others(others) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::binding::Content;
    use crate::routes::template::Template;

    #[test]
    fn a_path_means_what_its_verb_and_its_ending_say() {
        let route = |verb: Method, path: &str| {
            let template = Template::parse(path).unwrap();
            (Binding { verb, template, content: Content::Nothing }, path.to_owned())
        };
        let routes = HttpRoutes::new(vec![
            route(Method::GET, "/v1/{name=things/*}"),
            route(Method::DELETE, "/v1/{name=things/*}"),
            route(Method::GET, "/v1/things"),
            route(Method::POST, "/v1/{name=things/*}:start"),
        ]);
        let found = |verb: Method, path: &'static str| match routes.find(&verb, path) {
            Found::Way(_, target, captured) => Ok((target.as_str(), captured)),
            Found::Others(others) => Err(others),
            Found::Nothing => Err(Vec::new()),
        };
        assert_eq!(found(Method::GET, "/v1/things/a"), Ok(("/v1/{name=things/*}", vec!["things/a"])));
        assert_eq!(found(Method::GET, "/v1/things/a:b"), Ok(("/v1/{name=things/*}", vec!["things/a:b"])));
        let start = "/v1/{name=things/*}:start";
        assert_eq!(found(Method::POST, "/v1/things/a:start"), Ok((start, vec!["things/a"])));
        assert_eq!(found(Method::GET, "/v1/things/a:start"), Err(vec![Method::POST]));
        assert_eq!(found(Method::PUT, "/v1/things/a"), Err(vec![Method::DELETE, Method::GET]));
        assert_eq!(found(Method::GET, "/v1/nothing"), Err(vec![]));
    }
}
