//! The document that describes the server API (OpenAPI 3.1), as a file of its own.

use axum::http::header;
use axum::response::IntoResponse;

/// Where it is.
pub const PATH: &str = "/api/openapi.json";
/// What it says.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::value::Error;
    use serde::de::{Deserializer, Error as _, Visitor};
    use serde::{Deserialize, forward_to_deserialize_any};
    use serde_json::Value;

    use super::super::answer::{
        Answer, ChannelInfo, History, Info, NodeInfo, PastPublication, Published, Response,
    };
    use super::super::request::{
        BoolValue, Channels, Disconnect, History as HistoryRequest, Method, OfChannel, Override,
        Position, Publish, Reason, Refresh, Rpc, Subscribe, Unsubscribe,
    };
    use super::*;
    use crate::protocol::ErrorCode;

    /// Notes which fields a type takes, and gives it none.
    struct Fields<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Error> {
            self.0.extend(fields);
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    fn fields<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
        let mut fields = Vec::new();
        let _ = T::deserialize(Fields(&mut fields));
        assert!(!fields.is_empty());
        fields.into_iter().map(str::to_owned).collect()
    }

    fn document() -> Value {
        serde_json::from_str(DOCUMENT).expect("JSON")
    }

    fn described(document: &Value, schema: &str) -> BTreeSet<String> {
        let properties = &document["components"]["schemas"][schema]["properties"];
        let properties = properties.as_object().unwrap_or_else(|| panic!("{schema}"));
        properties.keys().cloned().collect()
    }

    #[test]
    fn every_method_has_its_path_and_no_path_is_without_a_method() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let expected: BTreeSet<String> = Method::ALL
            .iter()
            .map(|method| format!("/api/{}", method.name()))
            .collect();
        assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn every_field_that_a_request_takes_is_described_and_no_other() {
        let document = document();
        let without = |mut fields: BTreeSet<String>, name: &str| {
            assert!(fields.remove(name));
            fields
        };
        for (schema, taken) in [
            ("PublishRequest", without(fields::<Publish>(), "channels")),
            ("BroadcastRequest", without(fields::<Publish>(), "channel")),
            ("SubscribeRequest", fields::<Subscribe>()),
            ("UnsubscribeRequest", fields::<Unsubscribe>()),
            ("DisconnectRequest", fields::<Disconnect>()),
            ("Disconnect", fields::<Reason>()),
            ("RefreshRequest", fields::<Refresh>()),
            ("PresenceRequest", fields::<OfChannel>()),
            ("PresenceStatsRequest", fields::<OfChannel>()),
            ("HistoryRemoveRequest", fields::<OfChannel>()),
            ("HistoryRequest", fields::<HistoryRequest>()),
            ("ChannelsRequest", fields::<Channels>()),
            ("RpcRequest", fields::<Rpc>()),
            ("StreamPosition", fields::<Position>()),
            ("Override", fields::<Override>()),
            ("BoolValue", fields::<BoolValue>()),
        ] {
            assert_eq!(described(&document, schema), taken, "{schema}");
        }
        let commands = described(&document, "Command");
        for method in Method::ALL
            .iter()
            .filter(|method| **method != Method::Batch)
        {
            assert!(commands.contains(method.name()), "{}", method.name());
        }
    }

    #[test]
    fn every_field_of_an_answer_is_described() {
        let document = document();
        let info = || Info {
            client: "c".to_owned(),
            user: "u".to_owned(),
            conn_info: serde_json::from_str("1").ok(),
            chan_info: serde_json::from_str("1").ok(),
        };
        let published = Published {
            offset: 1,
            epoch: "e".to_owned(),
        };
        let publication = PastPublication {
            data: serde_json::from_str("1").ok(),
            b64data: "b".to_owned(),
            info: Some(info()),
            offset: 1,
            tags: [("k".to_owned(), "v".to_owned())].into(),
        };
        let history = History {
            publications: vec![],
            epoch: "e".to_owned(),
            offset: 1,
        };
        let value = |value: &dyn erased::Value| value.value();
        for (schema, answer) in [
            ("PublishResult", value(&published)),
            (
                "PublishResponse",
                value(&Response::Result(published.clone())),
            ),
            (
                "PublishResponse",
                value(&Response::Error(ErrorCode::Internal.into())),
            ),
            ("ClientInfo", value(&info())),
            ("Publication", value(&publication)),
            ("HistoryResult", value(&history)),
            ("ChannelInfo", value(&ChannelInfo { num_clients: 1 })),
            ("NodeInfo", value(&NodeInfo::default())),
            (
                "BroadcastResult",
                value(&Answer::Broadcast { responses: vec![] }),
            ),
            (
                "PresenceStatsResult",
                value(&Answer::PresenceStats {
                    num_clients: 1,
                    num_users: 1,
                }),
            ),
            ("InfoResult", value(&Answer::Info { nodes: vec![] })),
        ] {
            let known = described(&document, schema);
            for key in answer.as_object().expect("an object").keys() {
                assert!(known.contains(key), "{schema}.{key}");
            }
        }
    }

    /// Values of several types in one list.
    mod erased {
        pub(super) trait Value {
            fn value(&self) -> serde_json::Value;
        }

        impl<T: serde::Serialize> Value for T {
            fn value(&self) -> serde_json::Value {
                serde_json::to_value(self).expect("plain data")
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(map) => {
                    for (key, inner) in map {
                        match inner {
                            Value::String(target) if key == "$ref" => found.push(target),
                            inner => references(inner, found),
                        }
                    }
                }
                Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let pointer = target.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }
}
