//! What others rely on: the command line, governance, error reasons, the order of layers, drivers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::CommandFactory as _;
use pavior_gateway::{RouteTable, Target};
use pavior_rpc::server::{BoxLayer, ORDER, StackOptions, order};
use prost_reflect::DescriptorPool;

use crate::golden::assert_same;

/// Help is wrapped at this width, whatever the terminal is.
const WIDTH: usize = 100;

#[test]
fn command_line_help() {
    let mut command = pavior::cli::args::Cli::command();
    command.build();
    let mut text = String::new();
    describe(&mut text, &command, "pavior");
    assert_same("help.txt", &text);
}

fn describe(text: &mut String, command: &clap::Command, path: &str) {
    let help = command.clone().term_width(WIDTH).render_long_help().to_string();
    // What all commands have in common stands below the first one only.
    let shown =
        if path.contains(' ') { help.split("\nGlobal options:").next().unwrap_or_default() } else { &help };
    let help: Vec<&str> = shown.lines().map(str::trim_end).collect();
    writeln!(text, "=== {path}\n{}\n", help.join("\n").trim_end()).expect("a string takes everything");
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        describe(text, sub, &format!("{path} {}", sub.get_name()));
    }
}

#[test]
fn governance_of_every_public_method() {
    let table = RouteTable::build(pavior_proto::DESCRIPTORS).expect("every method has its rule");
    let methods: BTreeMap<&str, String> = table
        .methods()
        .map(|method| {
            let field = |field: &Option<pavior_gateway::Field>| {
                field.as_ref().map_or("-", |field| field.path.as_str()).to_owned()
            };
            let target = match &method.target {
                Target::Resource(field) => field.path.clone(),
                Target::Platform => "of the platform".to_owned(),
                Target::Caller => "-".to_owned(),
            };
            let text = format!(
                "{}\n    action {}\n    resource {}, owner {}, facts {}\n    {}, {}, {}, {}\n",
                method.path,
                method.action,
                target,
                field(&method.owner),
                if method.facts { "yes" } else { "no" },
                if method.reads { "ACCESS_READ" } else { "ACCESS_CHANGE" },
                method.audit.as_str_name(),
                if method.plan_follows { "STAGE_PLAN" } else { "STAGE_ADMISSION" },
                if method.governed { "AUDIENCE_GOVERNED" } else { "AUDIENCE_AUTHENTICATED" },
            );
            let more = method.amounts_to.iter().map(|action| format!("    amounts to {action}\n"));
            let within = if method.owners_within { "    owners within\n" } else { "" };
            let labels = method
                .labels
                .as_ref()
                .map_or_else(String::new, |field| format!("    labels {}\n", field.path));
            let missing = method.creates.as_ref().map_or_else(String::new, |creates| {
                format!("    with `allow_missing` {} where nothing is there\n", creates.method.action)
            });
            let text = text + &labels + &more.collect::<String>() + &missing + within;
            (method.path.as_str(), text)
        })
        .collect();
    assert_same("governance.txt", &methods.into_values().collect::<String>());
}

#[test]
fn error_reasons() {
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS).expect("the descriptors are whole");
    let reasons = pool.get_enum_by_name("pavior.type.v1.ErrorReason").expect("there are reasons");
    let text: String =
        reasons.values().map(|value| format!("{} {}\n", value.number(), value.name())).collect();
    assert_same("error-reasons.txt", &text);
    let reasons = pool.get_enum_by_name("pavior.type.v1.FieldViolationReason").expect("there are reasons");
    let text: String =
        reasons.values().map(|value| format!("{} {}\n", value.number(), value.name())).collect();
    assert_same("field-violation-reasons.txt", &text);
}

/// What answers nothing today could answer nothing else later.
#[test]
fn no_public_method_answers_nothing() {
    let pool = DescriptorPool::decode(pavior_proto::PUBLISHED).expect("the descriptors are whole");
    let ours = pool.services().filter(|service| service.full_name().starts_with("pavior."));
    let empty: Vec<String> = ours
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|method| method.output().full_name() == "google.protobuf.Empty")
        .map(|method| method.full_name().to_owned())
        .collect();
    assert_eq!(empty, Vec::<String>::new());
}

/// buf does not see that the number of an option changes, and no client could read the options any more.
#[test]
fn numbers_of_the_options() {
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS).expect("the descriptors are whole");
    let mut text: Vec<String> = pool
        .all_extensions()
        .filter(|extension| extension.parent_file().package_name().starts_with("pavior."))
        .map(|extension| {
            let number = extension.number();
            // descriptor.proto: every organization may use these for itself.
            assert!(!(50_000..=99_999).contains(&number), "{} is {number}", extension.full_name());
            format!("{number} {} {}\n", extension.full_name(), extension.containing_message().full_name())
        })
        .collect();
    text.sort();
    assert_same("options.txt", &text.concat());
}

/// What services of the platform say to each other is no part of what clients see, nor is it reachable from there.
#[test]
fn published_files_are_public() {
    let published = DescriptorPool::decode(pavior_proto::PUBLISHED).expect("the descriptors are whole");
    let all = DescriptorPool::decode(pavior_proto::DESCRIPTORS).expect("the descriptors are whole");
    let internal = |pool: &DescriptorPool| -> Vec<String> {
        let files = pool.files().filter(|file| file.package_name().contains(".internal."));
        files.map(|file| file.name().to_owned()).collect()
    };
    assert_eq!(internal(&published), Vec::<String>::new());
    assert_eq!(published.files().count() + internal(&all).len(), all.files().count());
}

#[test]
fn order_of_the_server_stack() {
    let own = StackOptions {
        inner: vec![("inner", BoxLayer::new(tower::layer::util::Identity::new()))],
        ..StackOptions::default()
    };
    let text = format!(
        "every server, outermost first\n  {}\nwith a layer of its own\n  {}\n",
        ORDER.join("\n  "),
        order(&own).join("\n  ")
    );
    assert_eq!(order(&StackOptions::default()), ORDER);
    assert_same("server-stack.txt", &text);
}

#[test]
fn drivers_with_their_types() {
    let data = tempfile::tempdir().expect("a folder");
    let shim = vec!["pavior".into(), "__shim".into()];
    let key = pavior_drivers::DriversKey::derive(&[0; 32]);
    let mut config = pavior_drivers::DriversConfig::new(data.path().join("data"), shim, BTreeMap::new(), key);
    // Never called: only the driver's description is asked for.
    config.postgres_url = Some("postgres://nobody@127.0.0.1:1/none".to_owned().into());
    let drivers = pavior_drivers::build(&config).expect("the drivers can be built");
    let mut infos = serde_json::to_value(drivers.registry.infos()).expect("infos are data");
    for info in infos.as_array_mut().into_iter().flatten().filter_map(|info| info.as_object_mut()) {
        // It is the workspace's and changes with every release.
        info.shift_remove("version");
    }
    assert_same("drivers.json", &serde_json::to_string_pretty(&infos).expect("values are JSON"));
}
