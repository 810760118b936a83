//! batch/v1 CronJob: Jobs by the calendar.

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};

use super::{job_spec, schedule};
use crate::columns::{
    AGE, Column, NAME, Printer, age, format_selector, list, name, since, text, text_or_none,
};
use crate::defaults::set;
use crate::kinds::apps::workload::{self, CONTAINERS, IMAGES, SELECTOR, containers_at};
use crate::resource::{Generation, Resource, Subresource};
use crate::validation::{At, Errors};

/// The longest name: its Jobs have eleven characters more, and their names are labels.
const MAX_NAME_BYTES: usize = 63 - 11;

/// The longest part between two slashes of a time zone's name.
const MAX_ZONE_PART_BYTES: usize = 14;

const CONTAINERS_AT: &str = "/spec/jobTemplate/spec/template/spec/containers";

pub fn resource() -> Resource {
    Resource {
        pod_template: Some("/spec/jobTemplate/spec/template"),
        warn: |object| {
            crate::kinds::core::pod::warnings::of(object, "/spec/jobTemplate/spec/template/spec")
        },
        short_names: vec!["cj".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        generation: Generation::Spec,
        has_status: true,
        default,
        create: |object| object["status"] = json!({}),
        validate,
        printer: COLUMNS,
        ..Resource::of::<CronJob>("batch", "batch", "cronjob", "cronjobs")
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Schedule", "When its jobs are started"),
        Column::text("Timezone", "The time zone of the schedule"),
        Column::boolean("Suspend", "Whether no new jobs are started"),
        Column::integer("Active", "How many of its jobs run"),
        Column::text("Last Schedule", "Time since a job was started"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells,
};

fn default(object: &mut Value) {
    let spec = workload::spec(object);
    set(spec, "concurrencyPolicy", || "Allow".into());
    set(spec, "suspend", || false.into());
    set(spec, "successfulJobsHistoryLimit", || 3.into());
    set(spec, "failedJobsHistoryLimit", || 1.into());
    let job = spec.pointer_mut("/jobTemplate/spec");
    if let Some(job) = job.filter(|job| job.is_object()) {
        workload::default_template(job);
        job_spec::default_policy(job);
    }
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let metadata = object.field("metadata");
    let name = metadata.field("name");
    let spec = object.field("spec");
    when(&spec.field("schedule"), errors);
    errors.not_negative(&spec.field("startingDeadlineSeconds"));
    time_zone(&spec.field("timeZone"), errors);
    errors.one_of(
        &spec.field("concurrencyPolicy"),
        &["Allow", "Forbid", "Replace"],
    );
    let template = spec.field("jobTemplate");
    let job = template.field("spec");
    job_spec::validate(&job, errors);
    let selector = job.field("selector");
    if !selector.is_null() {
        errors.invalid(&selector, "`selector` will be auto-generated");
    }
    let manual = job.field("manualSelector");
    if manual.is_true() {
        errors.not_supported(&manual, &["nil", "false"]);
    }
    errors.not_negative(&spec.field("successfulJobsHistoryLimit"));
    errors.not_negative(&spec.field("failedJobsHistoryLimit"));
    if name.text().len() > MAX_NAME_BYTES {
        let detail = format!("must be no more than {MAX_NAME_BYTES} characters");
        errors.invalid(&name, detail);
    }
}

fn when(schedule: &At<'_>, errors: &mut Errors) {
    if schedule.is_empty() {
        return errors.required(schedule, "");
    }
    if let Err(why) = schedule::parse(schedule.text()) {
        errors.invalid(schedule, why);
    }
    if schedule.text().contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(schedule, detail);
    }
}

/// The zone is in the database that this program brings with it.
fn time_zone(zone: &At<'_>, errors: &mut Errors) {
    if zone.is_null() {
        return;
    }
    if zone.is_empty() {
        return errors.invalid(zone, "timeZone must be nil or non-empty string");
    }
    let unknown = format!("unknown time zone {}", zone.text());
    if !zone.text().split('/').all(is_zone_part) {
        return errors.invalid(zone, unknown);
    }
    if zone.text().eq_ignore_ascii_case("local") {
        errors.invalid(
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }
    let known = TimeZoneDatabase::bundled().get(zone.text());
    // The database overlooks case, which Kubernetes does not.
    if !known.is_ok_and(|known| known.iana_name() == Some(zone.text())) {
        errors.invalid(zone, unknown);
    }
}

fn is_zone_part(part: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    (1..=MAX_ZONE_PART_BYTES).contains(&part.len())
        && !part.starts_with('-')
        && !matches!(part, "." | "..")
        && part.chars().all(fits)
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let last = match text(object, "/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        time => since(time, now),
    };
    let suspend = match object["spec"]["suspend"].as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    vec![
        name(object),
        text(object, "/spec/schedule").into(),
        text_or_none(object, "/spec/timeZone").into(),
        suspend.into(),
        list(object, "/status/active").len().into(),
        last.into(),
        age(object, now),
        containers_at(object, CONTAINERS_AT, "/name").into(),
        containers_at(object, CONTAINERS_AT, "/image").into(),
        format_selector(object.pointer("/spec/jobTemplate/spec/selector")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{change, columns, created, row, update, with, wrong};

    /// What the chart of a database adds for its backups.
    fn backup() -> Value {
        json!({
            "metadata": {"name": "backup"},
            "spec": {
                "schedule": "0 3 * * *",
                "timeZone": "Europe/Rome",
                "jobTemplate": {"spec": {"template": {"spec": {
                    "restartPolicy": "OnFailure",
                    "containers": [{"name": "dump", "image": "postgres:17"}],
                }}}},
            },
        })
    }

    #[test]
    fn a_cron_job_lets_jobs_overlap_and_keeps_the_last_ones() {
        let object = created(&resource(), backup());
        let spec = &object["spec"];
        let mut rest = spec.clone();
        rest.as_object_mut().unwrap().remove("jobTemplate");
        assert_eq!(
            rest,
            json!({
                "schedule": "0 3 * * *",
                "timeZone": "Europe/Rome",
                "concurrencyPolicy": "Allow",
                "suspend": false,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 1,
            })
        );
        let job = &spec["jobTemplate"]["spec"];
        assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        // A Job's own defaults are made when there is one.
        assert_eq!(job.get("backoffLimit"), None);
        assert_eq!(object["status"], json!({}));
        assert_eq!(object["metadata"]["generation"], 1);
    }

    #[test]
    fn cron_jobs_are_refused_in_the_words_of_kubernetes() {
        let cases = [
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("every day"),
                r#"spec.schedule: Invalid value: "every day": expected exactly 5 fields, found 2: [every day]"#,
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC 0 3 * * *"),
                r#"spec.schedule: Invalid value: "TZ=UTC 0 3 * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead"#,
            ),
            (
                "/spec/timeZone",
                json!(""),
                r#"spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string"#,
            ),
            (
                "/spec/timeZone",
                json!("Europe/InvalidRome"),
                r#"spec.timeZone: Invalid value: "Europe/InvalidRome": unknown time zone Europe/InvalidRome"#,
            ),
            (
                "/spec/timeZone",
                json!("europe/rome"),
                r#"spec.timeZone: Invalid value: "europe/rome": unknown time zone europe/rome"#,
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Queue"),
                r#"spec.concurrencyPolicy: Unsupported value: "Queue": supported values: "Allow", "Forbid", "Replace""#,
            ),
            (
                "/spec/startingDeadlineSeconds",
                json!(-1),
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal \
                 to 0",
            ),
            (
                "/spec/jobTemplate/spec/template/spec/restartPolicy",
                Value::Null,
                r#"spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#,
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                r#"spec.jobTemplate.spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: `selector` will be auto-generated"#,
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                r#"spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false""#,
            ),
        ];
        for (at, value, why) in cases {
            assert_eq!(wrong(&resource(), with(&backup(), at, value)), why);
        }
        let long = "x".repeat(53);
        assert_eq!(
            wrong(&resource(), with(&backup(), "/metadata/name", json!(long))),
            format!("metadata.name: Invalid value: {long:?}: must be no more than 52 characters")
        );
        for zone in ["UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires"] {
            let zoned = with(&backup(), "/spec/timeZone", json!(zone));
            assert_eq!(wrong(&resource(), zoned), "", "{zone}");
        }
    }

    #[test]
    fn everything_in_its_spec_may_change() {
        let old = created(&resource(), backup());
        let new = update(&resource(), &old, json!({"spec": {"suspend": true}}), None).unwrap();
        assert_eq!(new["metadata"]["generation"], 2);
        let image = json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": {
            "spec": {"containers": [{"name": "dump", "image": "postgres:18"}]}}}}}});
        assert_eq!(change(&resource(), &old, image), "");
        assert_eq!(
            change(&resource(), &old, json!({"spec": {"schedule": "* *"}})),
            r#"spec.schedule: Invalid value: "* *": expected exactly 5 fields, found 2: [* *]"#
        );
    }

    #[test]
    fn a_row_shows_when_it_was_last_due() {
        assert_eq!(
            columns(&resource()),
            [
                "Name",
                "Schedule",
                "Timezone",
                "Suspend",
                "Active",
                "Last Schedule",
                "Age",
                "[Containers]",
                "[Images]",
                "[Selector]"
            ]
        );
        let object = created(&resource(), backup());
        assert_eq!(
            row(&resource(), &object),
            json!([
                "backup",
                "0 3 * * *",
                "Europe/Rome",
                "False",
                0,
                "<none>",
                "10m",
                "dump",
                "postgres:17",
                "<none>"
            ])
        );
        let status = json!({"active": [{"name": "backup-1"}],
            "lastScheduleTime": "2026-01-02T03:14:00Z"});
        let object = with(&object, "/status", status);
        assert_eq!(row(&resource(), &object)[4], 1);
        assert_eq!(row(&resource(), &object)[5], "5s");
    }
}
