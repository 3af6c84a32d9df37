//! Sinks on other machines: references resolved, URLs and columns checked. Nothing is connected to.

use super::Resolver;
use crate::pipeline::plan::{self, WriteMode};
use crate::pipeline::spec::{self, Property};
use crate::sink::postgres::{check_url, writable};
use crate::sink::webhook::{ID_MEMBER, check_header};

type Inputs = [Option<plan::SinkInput>];

impl Resolver<'_> {
    pub(super) fn webhook(
        &mut self,
        sink: &spec::Sink,
        webhook: &spec::Webhook,
        inputs: &Inputs,
    ) -> Option<plan::Webhook> {
        self.id_members(sink, webhook, inputs);
        let headers = self.headers(&webhook.headers);
        let ca = self.ca(webhook.ca.as_ref());
        let written = webhook.url.as_ref()?;
        let url = self.reference("url", &written.value)?;
        if let Err(cause) = check_http_url(&url) {
            self.findings
                .error(written.value.span, format!("`url`: {cause}"))
                .help("a URL such as \"https://example.com/rows\"");
            return None;
        }
        let webhook = plan::Webhook {
            url,
            headers: headers?,
            batch: webhook.batch,
            in_flight: webhook.in_flight,
            timeout: webhook.timeout,
            ca: ca?,
            on_reject: webhook.on_reject,
        };
        let open = webhook.url.starts_with("http:") && !webhook.is_local();
        if open && !webhook.headers.is_empty() {
            self.findings
                .warning(written.value.span, "the headers are sent without TLS")
                .help("use https: whoever is on the way can read them");
        }
        Some(webhook)
    }

    /// Refuses a column that has the name of the id that a request of several rows adds.
    fn id_members(&mut self, sink: &spec::Sink, webhook: &spec::Webhook, inputs: &Inputs) {
        if webhook.batch == 1 {
            return;
        }
        for (from, input) in sink.from.iter().zip(inputs) {
            let clash = input
                .as_ref()
                .is_some_and(|i| i.schema.index_of(ID_MEMBER).is_ok());
            if clash {
                let message = format!(
                    "`{}` has a column `{ID_MEMBER}`, which a webhook adds itself",
                    from.value
                );
                self.findings.error(from.span, message).help(
                    "rename the column with `select`, or set batch = 1: the id is then a header",
                );
            }
        }
    }

    fn headers(&mut self, written: &[Property]) -> Option<Vec<(String, String)>> {
        let mut headers = Some(Vec::new());
        for header in written {
            let name = &header.name.value;
            let Some(value) = self.reference(name, &header.value) else {
                headers = None;
                continue;
            };
            if let Err(cause) = check_header(name, &value) {
                self.findings
                    .error(header.value.span, format!("header `{name}`: {cause}"));
                headers = None;
            }
            if let Some(headers) = &mut headers {
                headers.push((name.clone(), value));
            }
        }
        headers
    }

    /// The file of `ca`; the outer `None`: there is none where it should be.
    fn ca(
        &mut self,
        written: Option<&crate::pipeline::text::Spanned<String>>,
    ) -> Option<Option<std::path::PathBuf>> {
        let Some(written) = written else {
            return Some(None);
        };
        let path = self.spec.dir.join(&written.value);
        if path.is_file() {
            return Some(Some(path));
        }
        self.findings
            .error(
                written.span,
                format!("`ca`: no such file {}", path.display()),
            )
            .help("name a file of certificates in PEM form, relative to the pipeline file");
        None
    }

    pub(super) fn postgres(
        &mut self,
        sink: &spec::Sink,
        postgres: &spec::Postgres,
        inputs: &Inputs,
    ) -> Option<plan::Postgres> {
        let keyed = self.postgres_key(sink, postgres, inputs);
        let typed = self.postgres_types(sink, inputs);
        let ca = self.ca(postgres.ca.as_ref());
        let mode = match &postgres.mode {
            None if postgres.key.is_empty() => WriteMode::Insert,
            None => WriteMode::Upsert,
            Some(mode) => mode.value,
        };
        if mode == WriteMode::Upsert && postgres.key.is_empty() {
            let span = postgres.mode.as_ref().map_or(postgres.span, |m| m.span);
            self.findings
                .error(span, "`mode = \"upsert\"` needs a `key`")
                .help(
                    "name the columns of a unique index: key = [\"product_id\", \"window_start\"]",
                );
            return None;
        }
        let written = postgres.url.as_ref()?;
        let url = self.reference("url", &written.value)?;
        let place = match check_url(&url) {
            Ok(place) => place,
            Err(cause) => {
                self.findings
                    .error(written.value.span, format!("`url`: {cause}"))
                    .help("a URL such as \"postgres://USER:${env:PASSWORD}@HOST:5432/DATABASE?sslmode=verify-full\"");
                return None;
            }
        };
        keyed.and(typed)?;
        let table = &postgres.table.as_ref()?.value;
        Some(plan::Postgres {
            url,
            place,
            table: table.split('.').map(str::to_owned).collect(),
            key: postgres.key.iter().map(|k| k.value.clone()).collect(),
            mode,
            create: postgres.create,
            ca: ca?,
        })
    }

    /// Every input must have the key columns, each once; `step` is there with several inputs.
    fn postgres_key(
        &mut self,
        sink: &spec::Sink,
        postgres: &spec::Postgres,
        inputs: &Inputs,
    ) -> Option<()> {
        let mut all = Some(());
        for (i, name) in postgres.key.iter().enumerate() {
            let first = postgres.key[..i].iter().find(|k| k.value == name.value);
            if let Some(first) = first {
                let message = format!("`key` names column `{}` twice", name.value);
                self.findings.error(name.span, message).first(first.span);
                all = None;
                continue;
            }
            if sink.from.len() > 1 && name.value == plan::STEP_COLUMN {
                continue;
            }
            for input in inputs.iter().flatten() {
                let of = format!("input `{}`", input.label);
                let found = self.column(name, &input.schema, &of);
                all = all.and(found.map(|_| ()));
            }
        }
        all
    }

    /// Refuses columns that no type of Postgres holds.
    fn postgres_types(&mut self, sink: &spec::Sink, inputs: &Inputs) -> Option<()> {
        let mut all = Some(());
        for (from, input) in sink.from.iter().zip(inputs) {
            let fields = input.iter().flat_map(|i| i.schema.fields());
            for field in fields.filter(|f| !writable(f.data_type())) {
                let message = format!(
                    "column `{}` of `{}` is of type {}, which a Postgres sink cannot write",
                    field.name(),
                    from.value,
                    super::type_name(field.data_type())
                );
                self.findings
                    .error(from.span, message)
                    .help("leave the column out, or change its type, with `select`");
                all = None;
            }
        }
        all
    }
}

/// What is wrong with the URL of a webhook, without its text: it may hold a secret.
fn check_http_url(url: &str) -> Result<(), &'static str> {
    let uri: ureq::http::Uri = url.parse().map_err(|_| "not a URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it begins with neither http:// nor https://");
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("user and password do not belong into it: give them as a header");
    }
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    Ok(())
}
