//! What people are told while a command runs.

use super::plan::Note;
use crate::client::Standing;

/// A note as a sentence, with what is known of the hold.
pub(super) fn sentence(note: Note, lease: &str, standing: &Standing) -> String {
    let by = standing.asked_back.as_ref().map_or("somebody else", |asked| &*asked.by);
    let asked = standing.asked_back.as_ref().map(|asked| format!("it is asked back for {}", asked.by));
    let why = standing.lost.as_deref().or(asked.as_deref()).or(standing.trouble.as_deref());
    let why = why.unwrap_or("it was not renewed in time, because koncli did not run");
    let reason = standing.asked_back.as_ref().and_then(|asked| asked.reason.as_deref());
    match note {
        Note::Ending => {
            format!("lease {lease} ends at {} ({why}): the command gets SIGTERM", standing.expires)
        }
        Note::Leaving => {
            let reason = reason.filter(|reason| !reason.is_empty()).map(|reason| format!(" ({reason})"));
            format!("lease {lease} is asked back for {by}{}: the command gets SIGTERM", reason.unwrap_or_default())
        }
        Note::Killing => format!("lease {lease}: the grace is over, the command gets SIGKILL"),
        Note::KillingNow => format!("lease {lease} ends at {} ({why}): the command gets SIGKILL", standing.expires),
        Note::KillingLost => format!("lease {lease} is lost ({why}): the command gets SIGKILL"),
        Note::RunsOn => format!("lease {lease} is lost ({why}): the command runs on, as --on-lost ignore says"),
        Note::Leftovers => "the command has ended and left processes behind: they get SIGTERM".to_owned(),
        Note::NotRecorded => {
            format!(
                "the command has succeeded, but lease {lease} was lost before that could be recorded ({why}): it will run again"
            )
        }
    }
}
