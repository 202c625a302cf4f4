//! Settings: the values that an operator sets over the manifest's defaults, where each comes from, and
//! whether they fit the extension's schema.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jsonschema::{Keyword, ValidationError, Validator};
use quadriga_abi::manifest::{Manifest, Table, TomlValue};
use quadriga_abi::{Bytes, Error, ErrorCode, Value, codec};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::contract::schema_options;
use crate::dispatcher::Core;
use crate::route::Slot;
use crate::supervise::Renewal;
use crate::{Reason, State};

/// Settings by name.
pub type Settings = Map<String, Json>;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// The manifest: its `defaults`, or else the `default` of the schema.
    Default,
    /// A file.
    File {
        /// Where it is.
        path: PathBuf,
    },
    /// What an operator has a home keep for the extension.
    Home,
    /// An environment variable of the host.
    Environment {
        /// Its name.
        variable: String,
    },
    /// The host itself.
    RunTime,
}

/// A setting that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its value. A secret is only named in it.
    pub value: Json,
    /// Where the value comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

/// All settings of an extension that hold, in layers: of one that is set in several, the last holds,
/// as a whole.
///
/// ```
/// # use quadriga_core::{Configuration, Origin};
/// # use quadriga_core::abi::manifest::Manifest;
/// let manifest = "
/// [extension]
/// id = 'acme.words'
/// version = '1.0.0'
/// [runtime]
/// kind = 'mock'
/// entry = 'main'
/// [config]
/// schema = { properties = { language = { enum = ['en', 'de'] }, most = { default = 10 } } }
/// defaults = { language = 'en' }
/// ";
/// let manifest = Manifest::parse(manifest, "quadriga.toml").unwrap();
/// let set = serde_json::json!({ "language": "de" }).as_object().unwrap().clone();
/// let all = Configuration::resolve(&manifest, [(Origin::RunTime, set)]).unwrap();
/// assert_eq!(all.settings["language"].origin, Origin::RunTime);
/// assert_eq!(all.values()["most"], 10);
///
/// let set = serde_json::json!({ "language": "fr" }).as_object().unwrap().clone();
/// let error = Configuration::resolve(&manifest, [(Origin::RunTime, set)]).unwrap_err();
/// assert_eq!(error.code.as_str(), "invalid_config");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Configuration {
    /// By name.
    pub settings: BTreeMap<String, Setting>,
}

impl Configuration {
    /// Puts layers on top of each other, the manifest's defaults below them, and compares the result
    /// with the manifest's schema. Nothing is applied.
    ///
    /// # Errors
    /// `invalid_config`, with everything that does not fit and where it comes from, or
    /// `invalid_manifest`, if schema or defaults cannot be used.
    pub fn resolve(
        manifest: &Manifest,
        layers: impl IntoIterator<Item = (Origin, Settings)>,
    ) -> Result<Self, Error> {
        Self::put_together(manifest, Schema::of(manifest, true)?, layers)
    }

    /// The same, where what is missing may still come from elsewhere.
    ///
    /// # Errors
    /// As for [`Configuration::resolve`], but for settings that the schema requires.
    pub fn resolve_in_part(
        manifest: &Manifest,
        layers: impl IntoIterator<Item = (Origin, Settings)>,
    ) -> Result<Self, Error> {
        Self::put_together(manifest, Schema::of(manifest, false)?, layers)
    }

    fn put_together(
        manifest: &Manifest,
        schema: Schema,
        layers: impl IntoIterator<Item = (Origin, Settings)>,
    ) -> Result<Self, Error> {
        let mut all = Self::default();
        let mut set = |origin: &Origin, name: String, value| {
            all.settings.insert(name, Setting { value, origin: origin.clone() });
        };
        for (name, value) in schema.defaults() {
            set(&Origin::Default, name.clone(), value.clone());
        }
        for (name, value) in &manifest.config.defaults {
            set(&Origin::Default, name.clone(), json(value).map_err(|why| broken(manifest, &why))?);
        }
        for (origin, settings) in layers {
            for (name, value) in settings {
                set(&origin, name, value);
            }
        }
        let problems = schema.problems(&all);
        if problems.is_empty() {
            return Ok(all);
        }
        let message = format!("{}: {}", manifest.extension.id, problems.join("; "));
        Err(Error::new(ErrorCode::InvalidConfig, message).with_hint("its [config] schema says what fits"))
    }

    /// The values alone, as the extension gets them.
    pub fn values(&self) -> Settings {
        self.settings.iter().map(|(name, setting)| (name.clone(), setting.value.clone())).collect()
    }

    /// The same as a MessagePack map.
    pub(crate) fn to_bytes(&self) -> Result<Bytes, Error> {
        let bytes = Value::from(Json::Object(self.values())).to_bytes();
        let failed = |error| Error::new(ErrorCode::InvalidConfig, format!("the settings: {error}"));
        bytes.map(Bytes::from).map_err(failed)
    }
}

/// Reads settings from a file: JSON if its name ends in `.json`, and TOML otherwise.
///
/// # Errors
/// `invalid_config`, with the place in the file.
pub fn settings_from_file(path: &Path) -> Result<(Origin, Settings), Error> {
    let wrong = |why: String| Error::new(ErrorCode::InvalidConfig, format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let settings = match path.extension().is_some_and(|it| it == "json") {
        true => serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        false => {
            let table =
                text.parse::<Table>().map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
            let values = table.into_iter().map(|(name, value)| json(&value).map(|value| (name, value)));
            values.collect::<Result<_, _>>().map_err(wrong)?
        }
    };
    Ok((Origin::File { path: path.to_owned() }, settings))
}

/// The settings among environment variables: `QUADRIGA_CONFIG_ACME_WORDS__LANGUAGE` is `language` of
/// `acme.words`. Those that the schema or the defaults name are looked for. A value is JSON, or else the
/// text as it is; where the schema wants a string it is always the text.
///
/// # Errors
/// `invalid_manifest`, if the schema cannot be used.
pub fn settings_from_environment(
    manifest: &Manifest,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(Origin, Settings)>, Error> {
    let schema = Schema::of(manifest, true)?;
    let mut names: Vec<&String> = schema.properties().map(|(name, _)| name).collect();
    names.extend(manifest.config.defaults.keys().filter(|name| schema.property(name).is_none()));
    let upper = |text: &str| text.to_uppercase().replace(|letter: char| !letter.is_alphanumeric(), "_");
    let found = names.into_iter().filter_map(|name| {
        let id = manifest.extension.id.as_str();
        let variable_name = format!("QUADRIGA_CONFIG_{}__{}", upper(id), upper(name));
        let text = variable(&variable_name)?;
        let is_text = schema.property(name).and_then(|it| it.get("type")).is_some_and(|it| it == "string");
        let value = match serde_json::from_str(&text) {
            Ok(value) if !is_text => value,
            _ => Json::String(text),
        };
        Some((Origin::Environment { variable: variable_name }, Map::from_iter([(name.clone(), value)])))
    });
    Ok(found.collect())
}

impl Core {
    /// Has an extension go on with other settings.
    pub(crate) async fn configure(self: &Arc<Self>, extension: &str, set: Settings) -> Result<(), Error> {
        let mut slot = self.route(extension)?;
        if slot.is_asleep() {
            self.awaken(&slot, None).await?;
            slot = self.route(extension)?;
        }
        self.asks(&slot, &set).await?;
        let names: Vec<&str> = set.keys().map(String::as_str).collect();
        let what = format!("be given settings of its own: {}", names.join(", "));
        let core = Arc::clone(self);
        let id = slot.id.clone();
        self.on_executor(async move { core.renew(id.as_str(), false, Renewal::Asked, Some(set)).await })
            .await?;
        slot.reach.ward.log.managed(&slot.id, what, Reason::Operator);
        Ok(())
    }

    /// Compares settings with the schema of what runs, and asks it whether it takes them.
    pub(crate) async fn asks(self: &Arc<Self>, slot: &Arc<Slot>, set: &Settings) -> Result<(), Error> {
        let extension = &slot.id;
        let Some(source) = &slot.source else {
            let message = format!("{extension} is part of the host and has no settings");
            return Err(Error::new(ErrorCode::Unsupported, message));
        };
        let all = Configuration::resolve(&source.manifest, [(Origin::RunTime, set.clone())])?;
        let state = slot.reach.ward.standing.state();
        if !matches!(state, State::Running | State::Throttled) {
            let message = format!("{extension} does not run, so it cannot be given other settings");
            return Err(
                Error::new(ErrorCode::ExtensionStopped, message).with_hint("start or resume it first")
            );
        }
        let Some(method) = source.manifest.config.method.as_ref().filter(|_| !slot.is_asleep()) else {
            return Ok(());
        };
        let arguments = codec::arguments(&(all.values(),))
            .map_err(|error| Error::new(ErrorCode::InvalidConfig, format!("the settings: {error}")))?;
        let deadline = Instant::now() + self.policy.load_timeout;
        let asked = self.ask(slot, method, arguments.into(), deadline).await;
        asked.map(drop).map_err(|error| {
            let message = format!("{extension} refuses these settings: {}", error.message);
            Error::new(ErrorCode::ConfigRefused, message).with_cause(error)
        })
    }
}

/// A manifest's schema, ready to be compared with settings.
struct Schema {
    source: Json,
    validator: Validator,
}

impl Schema {
    /// The schema of all settings, or else of some of them.
    fn of(manifest: &Manifest, whole: bool) -> Result<Self, Error> {
        let schema = manifest.config.schema.iter();
        let schema = schema.map(|(name, value)| json(value).map(|value| (name.clone(), value)));
        let source = Json::Object(schema.collect::<Result<_, _>>().map_err(|why| broken(manifest, &why))?);
        let mut sealed = source.clone();
        seal(&mut sealed);
        if let (Json::Object(keywords), false) = (&mut sealed, whole) {
            keywords.shift_remove("required");
        }
        let options = schema_options().with_keyword(SECRET, |_, _, _| Ok(Box::new(Reference)));
        let validator = options.build(&sealed).map_err(|error| broken(manifest, &error.to_string()))?;
        Ok(Self { source, validator })
    }

    fn properties(&self) -> impl Iterator<Item = (&String, &Json)> {
        self.source.get("properties").and_then(Json::as_object).into_iter().flatten()
    }

    fn property(&self, name: &str) -> Option<&Json> {
        self.source.get("properties")?.get(name)
    }

    fn defaults(&self) -> impl Iterator<Item = (&String, &Json)> {
        self.properties().filter_map(|(name, schema)| Some((name, schema.get("default")?)))
    }

    fn problems(&self, all: &Configuration) -> Vec<String> {
        let values = Json::Object(all.values());
        let problem = |error: ValidationError<'_>| {
            let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
            // What is below a table may be meant to be secret.
            let words = match error.instance().is_object() || error.instance().is_array() {
                true => error.masked().to_string(),
                false => error.to_string(),
            };
            match all.settings.get(path.split('.').next().unwrap_or_default()) {
                Some(setting) => format!("{path} ({}): {words}", setting.origin),
                None => words,
            }
        };
        self.validator.iter_errors(&values).map(problem).collect()
    }
}

/// The keyword that stands in for the schema of a secret.
const SECRET: &str = "quadriga:secret";

/// Keywords whose values are data and no schemas.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// Puts a reference in the place of whatever is `writeOnly`, which is JSON Schema's word for what is
/// never shown (draft 2020-12, validation, 9.4).
fn seal(schema: &mut Json) {
    match schema {
        Json::Object(keywords) if keywords.get("writeOnly") == Some(&Json::Bool(true)) => {
            *keywords = Map::from_iter([(SECRET.to_owned(), Json::Bool(true))]);
        }
        Json::Object(keywords) => {
            keywords
                .iter_mut()
                .filter(|(name, _)| !DATA.contains(&name.as_str()))
                .for_each(|(_, it)| seal(it));
        }
        Json::Array(items) => items.iter_mut().for_each(seal),
        _ => {}
    }
}

/// Takes `{ secret = "NAME" }`, and never says what it was given instead.
struct Reference;

impl<'i> Keyword<'i> for Reference {
    fn validate(&self, value: &'i Json) -> Result<(), ValidationError<'i>> {
        match self.is_valid(value) {
            true => Ok(()),
            false => Err(ValidationError::custom("is secret: name it, as { secret = \"NAME\" }")),
        }
    }

    fn is_valid(&self, value: &'i Json) -> bool {
        value.as_object().is_some_and(|it| it.len() == 1 && it.get("secret").is_some_and(Json::is_string))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path } => write!(f, "{}", path.display()),
            Self::Home => f.write_str("home"),
            Self::Environment { variable } => f.write_str(variable),
            Self::RunTime => f.write_str("run time"),
        }
    }
}

fn broken(manifest: &Manifest, why: &str) -> Error {
    let message = format!("{}: [config] cannot be used: {why}", manifest.extension.id);
    Error::new(ErrorCode::InvalidManifest, message)
}

fn json(value: &TomlValue) -> Result<Json, String> {
    Ok(match value {
        TomlValue::String(text) => Json::String(text.clone()),
        TomlValue::Integer(n) => Json::from(*n),
        TomlValue::Float(x) => match serde_json::Number::from_f64(*x) {
            Some(number) => Json::Number(number),
            None => return Err(format!("{x} is no number of JSON")),
        },
        TomlValue::Boolean(b) => Json::Bool(*b),
        TomlValue::Datetime(time) => Json::String(time.to_string()),
        TomlValue::Array(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        TomlValue::Table(table) => {
            let entries = table.iter().map(|(name, value)| json(value).map(|value| (name.clone(), value)));
            Json::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}
