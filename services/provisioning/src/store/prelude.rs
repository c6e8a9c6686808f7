//! What nearly every file of the store names.

pub(crate) use pavior_store::{Recorded, Tx};
pub(crate) use sea_orm::ActiveValue::Set;
pub(crate) use sea_orm::sea_query::Expr;
pub(crate) use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, EntityTrait, ExprTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};

pub(crate) use crate::error::{Error, Result};
pub(crate) use crate::store::Db;
pub(crate) use crate::store::entity::column::Typed;
