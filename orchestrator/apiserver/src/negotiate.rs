//! What the client wants to get: encoding, shape (object, table, metadata), indentation. Pure.

use axum::http::{HeaderMap, header};

use super::request::Query;
use super::tables::IncludeObject;
use api::{ApiError, Format};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    pub format: Format,
    /// Objects as they are, or made into something else.
    pub shape: Shape,
    /// Indented JSON, for people.
    pub pretty: bool,
}

/// What becomes of the objects of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// As they are.
    Object,
    /// Rows of a table; the version of meta.k8s.io.
    Table(&'static str, IncludeObject),
    /// Metadata only; the version of meta.k8s.io.
    Metadata(&'static str),
}

/// One entry of `Accept`.
#[derive(Debug, Default)]
pub struct MediaRange {
    /// `application/json`
    pub media: String,
    /// `as=`: the kind to convert to.
    pub convert_to: String,
    /// `g=`
    pub group: String,
    /// `v=`
    pub version: String,
    quality: f32,
}

impl Wanted {
    /// JSON as it is stored.
    pub const JSON: Self = Self {
        format: Format::Json,
        shape: Shape::Object,
        pretty: false,
    };

    /// The first form that the client accepts and the server has of what it asks for.
    pub fn negotiate(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Self, ApiError> {
        let include = query.get("includeObject").unwrap_or_default();
        let include = IncludeObject::parse(include).ok_or_else(|| {
            ApiError::BadRequest(format!(
                "includeObject: Unsupported value: {include:?}: supported values: \"Metadata\", \
                 \"None\", \"Object\""
            ))
        })?;
        let (format, shape) = accepted(headers)
            .iter()
            .find_map(|range| {
                let form = (format_of(&range.media)?, shape_of(range, include)?);
                offer.has(form).then_some(form)
            })
            .ok_or_else(|| offer.not_acceptable())?;
        Ok(Self {
            format,
            shape,
            pretty: pretty(headers, query),
        })
    }

    /// The content type of an answer in this form.
    pub fn content_type(&self) -> &'static str {
        match self.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => PROTOBUF,
        }
    }

    /// That of a watch.
    pub fn stream_type(&self) -> &'static str {
        match self.format {
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Format::Json | Format::Yaml => "application/json",
        }
    }

    /// True if stored bytes can go out as they are.
    pub fn is_plain(&self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object && !self.pretty
    }
}

/// Which forms there are of what a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Objects of a built-in kind.
    BuiltIn,
    /// Objects of a custom kind: only their metadata has a form in protobuf.
    Custom,
    /// Objects that have no form in protobuf at all.
    Text,
    /// The answer to a question, which is no object that has a table or metadata.
    Review,
    /// A watch, which has no form in YAML, of a kind that is built in or not.
    Watch { built_in: bool },
}

impl Offer {
    fn has(self, (format, shape): (Format, Shape)) -> bool {
        let built_in = !matches!(self, Self::Custom | Self::Watch { built_in: false });
        match (format, shape) {
            (_, shape) if self == Self::Review && shape != Shape::Object => false,
            (Format::Protobuf, _) if self == Self::Text => false,
            (Format::Protobuf, Shape::Table(..)) => false,
            (Format::Protobuf, Shape::Object) => built_in,
            (Format::Yaml, _) => !matches!(self, Self::Watch { .. }),
            (Format::Protobuf, Shape::Metadata(_)) | (Format::Json, _) => true,
        }
    }

    fn not_acceptable(self) -> ApiError {
        let served = [
            ("application/json", Format::Json),
            ("application/yaml", Format::Yaml),
            (PROTOBUF, Format::Protobuf),
        ];
        let served = served
            .into_iter()
            .filter(|(_, format)| self.has((*format, Shape::Object)));
        let served: Vec<&str> = served.map(|(media, _)| media).collect();
        ApiError::NotAcceptable(format!(
            "only the following media types are accepted: {}",
            served.join(", ")
        ))
    }
}

/// Whether the client would rather have a Status in protobuf than in JSON.
pub fn prefers_protobuf(headers: &HeaderMap) -> bool {
    let accepted = accepted(headers);
    let first = accepted.iter().find_map(|range| format_of(&range.media));
    first == Some(Format::Protobuf)
}

/// Whether the client takes JSON, however much it prefers something else.
pub fn accepts_json(headers: &HeaderMap) -> bool {
    let accepted = accepted(headers);
    let mut formats = accepted.iter().map(|range| format_of(&range.media));
    formats.any(|format| format == Some(Format::Json))
}

/// The entries of `Accept`, the most wanted first; without the header everything is welcome.
pub fn accepted(headers: &HeaderMap) -> Vec<MediaRange> {
    let mut ranges: Vec<MediaRange> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|entry| !entry.trim().is_empty())
        .map(MediaRange::parse)
        .collect();
    if ranges.is_empty() {
        ranges.push(MediaRange::parse("*/*"));
    }
    // Stable: among equals the client's order counts.
    ranges.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    ranges
}

impl MediaRange {
    fn parse(entry: &str) -> Self {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self {
            media,
            quality: 1.0,
            ..Self::default()
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim_matches('"');
            match key {
                "as" => range.convert_to = value.to_owned(),
                "g" => range.group = value.to_owned(),
                "v" => range.version = value.to_owned(),
                "q" => range.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        range
    }
}

/// Whether the body is a server-side apply.
pub fn is_apply(headers: &HeaderMap) -> bool {
    let sent = headers.get(header::CONTENT_TYPE);
    sent.is_some_and(|value| value.as_bytes().starts_with(b"application/apply-patch"))
}

/// The format of a request's body; Kubernetes reads a body without a type as JSON.
pub fn body_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        PROTOBUF => Ok(Format::Protobuf),
        _ => Err(unknown_format(&[
            "application/json",
            "application/yaml",
            PROTOBUF,
        ])),
    }
}

/// A body is of a type that is not among these.
pub fn unknown_format(accepted: &[&str]) -> ApiError {
    ApiError::UnsupportedMediaType(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

/// The body's media type without parameters.
pub fn content_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    media.trim().to_ascii_lowercase()
}

fn format_of(media: &str) -> Option<Format> {
    match media {
        "application/json" | "application/*" | "*/*" => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        PROTOBUF => Some(Format::Protobuf),
        _ => None,
    }
}

fn shape_of(range: &MediaRange, include: IncludeObject) -> Option<Shape> {
    if range.convert_to.is_empty() {
        return Some(Shape::Object);
    }
    let version = match (range.group.as_str(), range.version.as_str()) {
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    match range.convert_to.as_str() {
        "Table" => Some(Shape::Table(version, include)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Metadata(version)),
        _ => None,
    }
}

/// People get indented JSON without asking, programs when they ask.
fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    query.optional_flag("pretty").unwrap_or_else(|| {
        let agent = headers
            .get(header::USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let agent = agent.unwrap_or_default();
        ["curl/", "Wget/", "Mozilla/5.0"]
            .iter()
            .any(|prefix| agent.starts_with(prefix))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Uri};

    use super::*;

    fn offered(accept: &'static str, offer: Offer) -> Result<Wanted, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        Wanted::negotiate(&headers, &Query::of(&Uri::from_static("/")), offer)
    }

    fn negotiate(accept: &'static str) -> Result<Wanted, ApiError> {
        offered(accept, Offer::BuiltIn)
    }

    #[test]
    fn kubectl_get_gets_a_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                      application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let shape = negotiate(accept).expect("acceptable").shape;
        assert_eq!(shape, Shape::Table("v1", IncludeObject::Metadata));
    }

    #[test]
    fn a_client_that_prefers_protobuf_gets_it_where_there_is_any() {
        let both = "application/vnd.kubernetes.protobuf, application/json";
        let format = |accept, offer| offered(accept, offer).map(|wanted| wanted.format);
        assert_eq!(format(both, Offer::BuiltIn), Ok(Format::Protobuf));
        assert_eq!(format(both, Offer::Custom), Ok(Format::Json));
        let only = "application/vnd.kubernetes.protobuf";
        let refused = offered(only, Offer::Custom).expect_err("not served");
        assert_eq!(refused.code(), 406);
        assert_eq!(
            refused.to_string(),
            "only the following media types are accepted: application/json, application/yaml"
        );
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;\
                        g=meta.k8s.io;v=v1";
        assert_eq!(format(metadata, Offer::Custom), Ok(Format::Protobuf));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1, */*";
        assert_eq!(negotiate(table), Ok(Wanted::JSON));
    }

    #[test]
    fn a_watch_is_not_served_in_yaml() {
        let offer = Offer::Watch { built_in: true };
        assert_eq!(
            offered("application/yaml", offer)
                .expect_err("refused")
                .code(),
            406
        );
        let either = offered("application/yaml, application/json", offer);
        assert_eq!(either, Ok(Wanted::JSON));
    }

    #[test]
    fn quality_orders_what_is_accepted() {
        let wanted = negotiate("application/json;q=0.5, application/yaml").expect("acceptable");
        assert_eq!(wanted.format, Format::Yaml);
    }

    #[test]
    fn an_unknown_conversion_is_skipped() {
        let wanted = negotiate("application/json;as=Odd;g=meta.k8s.io;v=v1, */*");
        assert_eq!(wanted, Ok(Wanted::JSON));
    }
}
