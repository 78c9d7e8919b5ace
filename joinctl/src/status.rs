//! `joinctl status`: how the authority is.

use join_proto::v1::Status;

use crate::{
    cli::Context,
    moment::seconds,
    output::{print, printable, tree},
};

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let status = context.connect().await?.status().await?;
    print(context.format, &tree::of(&status), || render(&status))
}

fn render(status: &Status) -> String {
    let log = format!(
        "{} entries, {} not sequenced yet; integrated {}, signed {}, views at {}",
        status.log_next_index, status.unsequenced, status.log_integrated, status.log_signed, status.view_index
    );
    let mut lines = vec![
        ("cluster", status.cluster_name.clone()),
        ("version", status.version.clone()),
        ("time", seconds(status.database_time.as_ref())),
        ("bots", status.bots.to_string()),
        ("tokens", status.tokens.to_string()),
        ("instances", format!("{} live", status.instances_live)),
        ("locks", status.locks.to_string()),
        ("exemptions", format!("{} open", status.exemptions_open)),
        ("log", log),
    ];
    if status.alarms.is_empty() {
        lines.push(("alarms", "none".to_owned()));
    }
    lines.extend(status.alarms.iter().map(|alarm| ("ALARM", alarm.clone())));
    lines.iter().map(|(name, value)| format!("{name:<12}{}\n", printable(value).replace('\n', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_stand_out() {
        let mut status = Status { cluster_name: "dev.local".into(), ..Default::default() };
        assert!(render(&status).contains("alarms      none\n"));
        status.alarms.push("authority behind".into());
        let text = render(&status);
        assert!(text.contains("ALARM       authority behind\n") && !text.contains("none"), "{text}");
    }
}
