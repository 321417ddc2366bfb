//! JSON as the ledger keeps it: facts, plans, reports. Absent values are left out, which saves a third.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::error::StoreError;
use crate::engine::fact::{FACT_VERSION, Fact};

/// Compact JSON without keys whose value is null: every optional field reads as absent again.
pub(super) fn encode(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(compact(value)?.to_string())
}

/// The same, not printed yet.
pub(super) fn compact(value: &impl Serialize) -> Result<Value, StoreError> {
    let mut json = serde_json::to_value(value).map_err(|error| StoreError::Inconsistent(error.to_string()))?;
    drop_nulls(&mut json);
    Ok(json)
}

fn drop_nulls(json: &mut Value) {
    match json {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Reads what [`encode`] wrote; `what` names the row in the error.
pub(super) fn decode<T: DeserializeOwned>(json: &str, what: impl FnOnce() -> String) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Unreadable {
        what: what(),
        detail: error.to_string(),
    })
}

/// Reads a fact of this version or any earlier one.
pub(super) fn decode_fact(seq: i64, json: &str) -> Result<Fact, StoreError> {
    #[derive(Deserialize)]
    struct Head {
        v: u64,
    }
    let known = FACT_VERSION;
    match serde_json::from_str::<Fact>(json) {
        Ok(fact) if fact.v <= known => Ok(fact),
        Ok(fact) => Err(StoreError::NewerFact {
            seq,
            found: fact.v.into(),
            known,
        }),
        // A later version may say what this one cannot even read.
        Err(error) => match serde_json::from_str::<Head>(json) {
            Ok(Head { v }) if v > known.into() => Err(StoreError::NewerFact { seq, found: v, known }),
            _ => Err(StoreError::Unreadable {
                what: format!("fact {seq}"),
                detail: error.to_string(),
            }),
        },
    }
}
