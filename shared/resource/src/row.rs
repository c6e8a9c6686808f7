//! The columns that every table of resources has, written once: a table names its own columns only.

/// The row of a resource: `row!(stored, group::Model { display_name, parent })`.
#[macro_export]
macro_rules! row {
    ($stored:expr, $model:path { $($column:ident $(: $value:expr)?),* $(,)? }) => {{
        let stored = $stored;
        $model {
            uid: stored.uid,
            organization: stored.organization.clone(),
            id: stored.id.clone(),
            revision: stored.revision,
            create_time: ::pavior_store::micros(stored.create_time),
            update_time: ::pavior_store::micros(stored.update_time),
            $($column $(: $value)?),*
        }
    }};
}

/// The resource of a row, with the fields made of its own columns, none of which is left out:
/// `stored!(row, group::Model { display_name, parent }, GroupFields { display_name, parent })`.
#[macro_export]
macro_rules! stored {
    ($row:expr, $model:path { $($column:ident $(: $bound:pat)?),* $(,)? }, $fields:expr) => {{
        let $model { uid, organization, id, revision, create_time, update_time, $($column $(: $bound)?),* } = $row;
        let fields = $fields;
        Ok($crate::Stored {
            uid,
            organization,
            id,
            revision,
            create_time: $crate::stored_time(create_time)?,
            update_time: $crate::stored_time(update_time)?,
            ended: None,
            fields,
        })
    }};
}
