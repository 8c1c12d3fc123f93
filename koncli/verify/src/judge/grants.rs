//! What a grant has to fit: the hold before it, the request that it is for, and who came earlier.

use super::*;

impl Judge<'_> {
    #[expect(clippy::too_many_arguments, reason = "what is known of one event, used nowhere else")]
    pub(super) fn new_hold(
        &mut self,
        place: &(String, String),
        name: &mut Name,
        revision: i64,
        seen: Option<i64>,
        first: bool,
        ended: Option<usize>,
        lease: &Lease,
        new: &Holding,
        evidence: &Evidence,
        found: &mut Found,
    ) {
        if new.token <= name.token {
            let what = format!("a grant with the token {}, after {}", new.token, name.token);
            found.push((Rule::TokenDoesNotRise, what, Some(name.token_seen.clone())));
        }
        if new.expires <= new.acquired {
            found.push((Rule::IncompleteHold, format!("a hold that ends before it begins: {new:?}"), None));
        }
        match self.granted.get(&new.request) {
            Some((token, before)) if *token != new.token || !first => {
                let what = format!("the request {} is granted twice", new.request);
                found.push((Rule::GrantedTwice, what, Some(before.clone())));
            }
            _ => {
                self.granted.insert(new.request.clone(), (new.token, evidence.clone()));
            }
        }
        self.asked_for(place, new, seen, first, found);
        if !first {
            self.figures.grants += 1;
            if let Some(index) = name.untold {
                self.follows(name, index, ended.is_some(), new, found);
            }
            self.overtakes(name, revision, lease, new, evidence, found);
        }
        name.promised = seen.filter(|_| !first).and_then(|seen| Some((seen, promised(lease, new)?)));
        let index = self.holds.len();
        self.holds.push(Hold {
            namespace: place.0.clone(),
            lease: place.1.clone(),
            holding: new.clone(),
            granted: revision,
            grant_seen: !first,
            over: None,
            how: None,
        });
        name.current = Some(index);
        name.by_token.insert(new.token, index);
    }

    /// Whether the request is there, and is the holder's own.
    fn asked_for(
        &mut self,
        place: &(String, String),
        new: &Holding,
        seen: Option<i64>,
        first: bool,
        found: &mut Found,
    ) {
        // When it was decided, at the latest: a write may be seen late, and a clock may be ahead.
        let decided = seen.map(|seen| seen.min(new.acquired));
        let rule = Rule::GrantWithoutRequest;
        let Some(asked) = self.requests.get(&new.request) else {
            match self.requests_known {
                Known::Everything => {
                    let what = format!("a grant to the request {}, which has never existed", new.request);
                    found.push((rule, what, None));
                }
                Known::Since(Some(since))
                    if !first && decided.is_some_and(|decided| decided > since + self.options.lag) =>
                {
                    let what = format!(
                        "a grant to the request {}, which was not there when all were listed, and was not made since",
                        new.request
                    );
                    found.push((rule, what, None));
                }
                _ => self.unjudged(Unjudged::RequestsNotSeen),
            }
            return;
        };
        let by = Some(asked.last.clone());
        let lease = asked.lease.split_once('/').map_or("", |(_, lease)| lease);
        if asked.lease != format!("{}/{}", place.0, place.1) || asked.holder != new.holder {
            found.push((rule, format!("{} gets what {} has asked for on {lease}", new.holder, asked.holder), by));
            return;
        }
        if first {
            return self.unjudged(Unjudged::GrantsNotSeen);
        }
        let lag = self.options.lag;
        if let Some(gone) = asked.gone {
            match (decided, gone.seen) {
                (Some(decided), Some(since)) if decided > since + lag => {
                    let what = format!(
                        "a grant to the request {}, which had been gone for {} ms",
                        new.request,
                        decided - since
                    );
                    found.push((rule, what, by));
                }
                (Some(_), Some(_)) => {}
                _ => self.unjudged(Unjudged::GrantsAtDeletion),
            }
        } else if let (Some(decided), Some(touched), Some(timeout @ 1..)) = (decided, asked.touched, asked.timeout)
            && !asked.unsure
            && decided > touched + timeout + lag
        {
            let what = format!(
                "a grant to the request {}, which nobody had touched for {} ms, with a timeout of {timeout} ms",
                new.request,
                decided - touched
            );
            found.push((rule, what, by));
        }
    }

    /// Whether the hold before is over, and told to be.
    fn follows(&self, name: &Name, before: usize, at_once: bool, new: &Holding, found: &mut Found) {
        let old = &self.holds[before].holding;
        let last = Some(name.last.clone());
        match name.told.get(&old.token) {
            None => {
                let what = format!("{} takes over from {} and nothing tells why", new.holder, old.holder);
                found.push((Rule::Overlap, what, last));
            }
            Some((past, _)) => {
                let ended = parse_timestamp(&past.ended);
                // In one write there is one clock; in two there may be two. Only a hold that ends in the moment in which
                // it began has the time of that: by a clock which may have been ahead of the one that ends it.
                let skew = if ended == Some(old.acquired) { self.options.max_clock_skew } else { 0 };
                if let Some(ended) = ended.filter(|&ended| at_once && ended.saturating_sub(new.acquired) > skew) {
                    let what = format!("a hold begins at {}, before {ended}, the end of the last", new.acquired);
                    found.push((Rule::Overlap, what, last.clone()));
                }
                if past.how == HoldEnd::Superseded && old.holder != new.holder {
                    let what = format!("{} supersedes {}, another holder", new.holder, old.holder);
                    found.push((Rule::FalseEnding, what, last));
                }
            }
        }
    }

    /// Whether somebody got the lease who had come after this one, and was its equal.
    fn overtakes(
        &mut self,
        name: &mut Name,
        revision: i64,
        lease: &Lease,
        new: &Holding,
        evidence: &Evidence,
        found: &mut Found,
    ) {
        if !self.options.order {
            return;
        }
        let policy = lease.status.as_ref().and_then(|status| status.policy.as_ref());
        if policy.is_none_or(|policy| policy.name != DEFAULT_POLICY) {
            return self.unjudged(Unjudged::OrdersOfPolicies);
        }
        if let Some(waited) = self.requests.get(&new.request) {
            let overtook = self.overtaken(&name.grants, waited);
            if let Some((first, grant)) = overtook {
                let what = format!(
                    "{} was served at revision {}, before {}, which had come earlier with the same priority",
                    first.holder, grant.revision, new.holder
                );
                found.push((Rule::Overtaking, what, Some(grant.evidence.clone())));
            }
        }
        // A holder that asks anew keeps its lease: it does not stand in the line.
        let told = name
            .untold
            .and_then(|index| Some((&self.holds[index].holding, name.told.get(&self.holds[index].holding.token)?)));
        if told.is_some_and(|(old, (past, _))| past.how == HoldEnd::Superseded && old.holder == new.holder) {
            return;
        }
        name.grants.push(Grant {
            request: new.request.clone(),
            acquired: new.acquired,
            revision,
            lease_priority: lease.spec.priority.unwrap_or_default(),
            evidence: evidence.clone(),
        });
    }

    /// The first grant to somebody who had come later, at a time at which the controller knew of this one.
    pub(super) fn overtaken<'a>(&'a self, grants: &'a [Grant], waited: &Asked) -> Option<(&'a Asked, &'a Grant)> {
        let known_at = waited.created? + 1_000 + self.options.lag;
        grants.get(waited.grants_before..)?.iter().find_map(|grant| {
            let other = self.requests.get(&grant.request)?;
            let priority = |asked: &Asked| asked.priority.unwrap_or(grant.lease_priority);
            let later = match (other.created?.cmp(&waited.created?), other.sequence, waited.sequence) {
                (std::cmp::Ordering::Greater, ..) => true,
                // Within a second the place at which the controller saw it decides.
                (std::cmp::Ordering::Equal, Some(other), Some(waited)) => other > waited,
                _ => false,
            };
            (later && priority(other) == priority(waited) && grant.acquired >= known_at).then_some((other, grant))
        })
    }
}
