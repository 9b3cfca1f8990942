"""A random walk over the replication protocol of ARCHITECTURE.md, to find holes in its design; the simulation runs its code.

usage: protocol_model.py [WALKS] [STEPS] [BREAK]     BREAK: one of BREAKS, to see that the walk finds it.

Modelled: any number of amnesic operators acting at once on stale epochs and stopping anywhere; fsync as a step of its own; crashes
that lose what was not synced; late, lost and repeated acks and appointments; cuts; lost disks; disks that forget a promise;
changes of voters; clusters that begin with a log that was restored.
Not modelled: time, liveness, damage, trimming, and record contents beyond an identity.
"""
import random
import sys
from collections import namedtuple

BREAKS = {
    "promise_equal": "a replica promises the same epoch twice",
    "longest_log": "the candidate is the longest log, whatever its epoch",
    "stale_voters": "the electorate is not the newest one among the answers",
    "static": "the lowest voter leads whether or not it is the candidate",
    "two_steps": "voters change by two at once",
    "change_early": "voters change again before the last change is settled",
    # Found only while elections did not ask the old voters either: the two rules cover each other here.
    "new_quorum_only": "a change of voters settles without a majority of the old ones",
    "new_electorate_only": "an unsettled change of voters elects without a majority of the old ones",
    "accept_early": "a replica accepts an epoch start before its log has reached it",
    "history_first": "an epoch start is durable before the records in front of it",
    "count_old_epochs": "records of older epochs commit by counting",
    "late_ack": "an ack leaves after the replica has promised a higher epoch",
    "lead_again": "a restarted leader leads its old epoch again",
    "amnesia": "a replica that lost its disk keeps its identity",
    "restored_forgotten": "a cluster that began with a restored log elects without whom it was restored to before others hold it",
    "blank_first": "a cluster begins with a blank replica although another was restored",
    "next_epoch": "where nobody writes down which epoch is taken, the next one is",
}

UNREST = ((0.01, 0.03, 0.05), (0.03, 0.06), (0.06, 0.12))  # how often an operator begins an epoch, by the shape of the walk
SKIPPED_MAX = 1 << 18                # wider than in the code: no two attempts meet by chance

Start = namedtuple("Start", "epoch start leader voters quorum old")  # old: the voters before an unsettled change, or None


def majority(of, among):
    return of is None or sum(x in among for x in of) > len(of) // 2


class Replica:
    def __init__(self, rid):
        self.rid = rid
        self.promised = 0            # durable
        self.before = None           # what it had promised before, if its disk has not changed otherwise since
        self.log = []                # record identities; durable up to:
        self.durable = 0
        self.history = []            # epoch starts in log order; durable as far as the log is
        self.commit = 0
        self.restored = 0            # the last epoch of a log that was restored to it
        self.crash()

    def crash(self):
        self.leading = 0             # the epoch it leads
        self.fed = 0                 # the epoch it was last fed in
        self.acked = {}              # leader: replica id -> durable end reported in this epoch
        self.settled = False         # leader: this epoch's start has committed
        self.syncing = None

    def held(self, brk):
        return [h for h in self.history if h.start <= self.durable or brk == "history_first"]

    def last_epoch(self):
        return self.history[-1].epoch if self.history else 0

    def is_seed(self):
        return self.restored > 0 and self.last_epoch() == self.restored


class Walk:
    def __init__(self, seed, brk):
        self.r, self.brk = random.Random(seed), brk
        self.rids = 0
        # Three shapes: everything goes wrong; or only voters change, much and from an even number, which finds what the first rarely
        # does; or disks forget promises, while operators take no epoch that they know to be taken.
        shape = self.r.random()
        self.voters_only, self.forgetful = shape < 0.4, shape > 0.88
        replicas = 5 if self.voters_only else self.r.choice((3, 3, 4) if self.forgetful else (4, 5, 6))
        self.replicas = [self.fresh() for _ in range(replicas)]
        initial = 4 if self.voters_only else 3 if self.forgetful else self.r.choice((1, 3, 3, 4))
        self.initial = frozenset(x.rid for x in self.replicas[:initial])
        self.change = 0.9 if self.voters_only else self.r.random() * (0.2 if self.forgetful else 1)
        self.busy, self.unrest = self.r.random(), self.r.choice(UNREST[self.voters_only + 2 * self.forgetful])
        self.records, self.committed, self.committed_in = 0, [], []
        self.leaders, self.appointments, self.attempts = {}, [], []
        self.cut_off = None              # a leader whose followers do not hear of it
        self.recorded = 0                # where a store answers: the last epoch that an operator took
        if self.r.random() < 0.15:
            self.restore()

    def restore(self):
        """One of the initial voters holds what another cluster has left: all of it counts as committed."""
        x = self.by_rid(self.r.choice(sorted(self.initial)))
        voters = frozenset(range(-3, 0))
        for _ in range(self.r.randint(1, 3)):
            epoch = x.last_epoch() + self.r.randint(1, 3)
            x.history.append(Start(epoch, len(x.log), -1, voters, 2, None))
            self.records += self.r.randint(1, 4)
            x.log.extend(range(len(x.log) + 1, self.records + 1))
        x.promised = x.restored = x.last_epoch()
        x.durable = x.commit = len(x.log)
        self.committed, self.committed_in = list(x.log), [(0, len(x.log))]

    def fresh(self):
        self.rids += 1
        return Replica(self.rids)

    def by_rid(self, rid):
        return next((x for x in self.replicas if x.rid == rid), None)

    # ---- an operator, one step at a time
    def attempt(self):
        asked = self.r.sample(self.replicas, len(self.replicas))
        epoch = max(1, max(x.promised for x in self.replicas) + self.r.choice((-1, 0, 1, 1, 1, 1, 1, 2)))
        if self.forgetful:
            asked = asked[: self.r.randint(len(asked) // 2 + 1, len(asked))]
            epoch = max(x.promised for x in asked) + 1
            if self.r.random() < 0.5:
                epoch = self.recorded = max(epoch, self.recorded + 1)
            elif self.brk != "next_epoch":
                epoch += self.r.randint(1, SKIPPED_MAX)
        answers = {}
        for x in asked:
            yield
            if not (epoch > x.promised or (self.brk == "promise_equal" and epoch == x.promised)):
                continue
            x.before = x.promised if x.durable == len(x.log) and not x.leading else None
            x.promised = epoch
            x.leading = 0
            held = [] if x.is_seed() else x.held(self.brk)
            answers[x.rid] = (held[-1].epoch if held else 0, x.durable, held[-1] if held else None)
            known = [a[2] for a in answers.values() if a[2]]
            newest = max(known, default=None)
            electors = (min(known) if self.brk == "stale_voters" else newest).voters if known else self.initial
            seeds = {v for v in answers if self.by_rid(v) and self.by_rid(v).is_seed()}
            if not known and not (electors <= set(answers) and not any(a[1] for v, a in answers.items() if v not in seeds)):
                continue                 # a bootstrap needs every initial voter, blank or restored
            if known and not majority(electors, answers):
                continue
            if known and self.brk != "new_electorate_only" and not majority(newest.old, answers):
                continue
            if self.r.random() < 0.3:
                continue                 # hear more answers first
            yield
            rank = (lambda v: answers[v][1]) if self.brk == "longest_log" else (lambda v: answers[v][:2])
            able = electors - seeds if not known and self.brk == "blank_first" else electors
            best = max((v for v in able or electors if v in answers), key=rank)
            if self.brk == "static" and min(electors) in answers:
                best = min(electors)
            self.decide(epoch, best, newest, answers, seeds)
            return

    def decide(self, epoch, best, newest, answers, seeds):
        if newest is None:
            restored = frozenset(seeds & self.initial) if self.brk != "restored_forgotten" else None
            self.appoint(best, epoch, self.initial, restored or None)
            return
        holding = {v for v, a in answers.items() if a[0] == newest.epoch}
        old_holds = self.brk == "new_quorum_only" or majority(newest.old, holding)
        if not (majority(newest.voters, holding) and old_holds) and self.brk != "change_early":
            self.appoint(best, epoch, newest.voters, newest.old)
            return
        new = set(newest.voters)
        if self.r.random() < self.change:
            for _ in range(2 if self.brk == "two_steps" else 1):
                others, gone = [x.rid for x in self.replicas if x.rid not in new], [v for v in new if v != best]
                if others and self.r.random() < 0.5:
                    new.add(self.r.choice(others))
                elif gone and len(new) > 1:
                    new.discard(self.r.choice(gone))
        self.appoint(best, epoch, frozenset(new), newest.voters if new != newest.voters else None)

    def appoint(self, rid, epoch, voters, old):
        quorum = len(voters) // 2 + 1 if self.r.random() < 0.8 else self.r.randint(len(voters) // 2 + 1, len(voters))
        self.appointments.append((rid, epoch, voters, quorum, old))
        self.lead(*self.appointments[-1])

    def lead(self, rid, epoch, voters, quorum, old):
        x = self.by_rid(rid)
        if x is None or x.promised != epoch or x.leading:
            return
        if x.last_epoch() >= epoch and not (self.brk == "lead_again" and x.last_epoch() == epoch):
            return
        assert self.leaders.setdefault(epoch, rid) == rid, f"two leaders in epoch {epoch}"
        must = max((end for e, end in self.committed_in if e < epoch), default=0)
        assert x.log[:must] == self.committed[:must], f"the leader of {epoch} lacks committed records"
        x.crash()
        x.before = None
        x.durable = len(x.log)           # it syncs before it leads
        if x.last_epoch() < epoch:
            x.history.append(Start(epoch, len(x.log), rid, voters, quorum, old))
        x.leading, x.acked = epoch, {rid: len(x.log)}
        if self.forgetful and self.r.random() < 0.5:
            self.cut_off = rid
        self.advance(x)

    # ---- the data path
    def append(self):
        for x in self.replicas:
            if x.leading and self.r.random() < 0.5:
                self.records += 1
                x.log.append(self.records)

    def replicate(self):
        leaders = [x for x in self.replicas if x.leading]
        if not leaders:
            return
        x, f = self.r.choice(leaders), self.r.choice(self.replicas)
        if f is x or x.rid == self.cut_off or f.promised > x.leading:
            return
        f.promised, f.leading, f.before = x.leading, 0, None
        common, depth = 0, 0             # where the two part
        for a, b in zip(x.history, f.history):
            if a != b:
                break
            depth += 1
            ends = [(y.history[depth].start if depth < len(y.history) else len(y.log)) for y in (x, f)]
            common = min(ends)
        assert f.commit <= common, "a cut below the commit end"
        if len(f.log) > common or len(f.history) > depth:
            del f.log[common:], f.history[depth:]
            f.durable, f.syncing = min(f.durable, common), None
        upto = len(x.log) if self.r.random() < 0.5 else self.r.randint(len(f.log), max(len(f.log), len(x.log)))
        f.log.extend(x.log[len(f.log) : upto])
        f.history = [h for h in x.history if h.start <= len(f.log) or self.brk == "accept_early"]
        f.fed = x.leading
        if self.r.random() < 0.5:
            f.commit = max(f.commit, min(x.commit, f.durable))

    def sync(self):
        x = self.r.choice(self.replicas)
        if x.syncing is None:
            x.syncing = (len(x.log), x.leading or x.fed)
            if self.r.random() < 0.4:
                return                   # the rest happens later, or never
        (end, epoch), x.syncing = x.syncing, None
        x.durable = max(x.durable, min(end, len(x.log)))
        leader = next((y for y in self.replicas if y.leading and y.leading == epoch), None)
        accepted = any(h.epoch == epoch for h in x.held(self.brk)) or self.brk == "count_old_epochs"
        in_time = x.promised == epoch or self.brk == "late_ack"
        if leader and accepted and in_time and self.r.random() < 0.8:
            leader.acked[x.rid] = max(leader.acked.get(x.rid, 0), min(end, x.durable))
            self.advance(leader)

    def advance(self, x):
        at = x.history[-1]
        ends = lambda voters: sorted((x.acked.get(v, -1) for v in voters), reverse=True)
        end = ends(at.voters)[at.quorum - 1]
        if at.old and not x.settled and self.brk != "new_quorum_only":
            end = min(end, ends(at.old)[len(at.old) // 2])
        if end < at.start and self.brk != "count_old_epochs":
            return
        x.settled = True
        x.commit = max(x.commit, end)
        seen = min(x.commit, len(self.committed))
        assert x.log[:seen] == self.committed[:seen], "committed records changed"
        if x.commit > len(self.committed):
            self.committed = x.log[: x.commit]
        self.committed_in.append((x.leading, x.commit))

    # ---- faults
    def restart(self):
        x = self.r.choice(self.replicas)
        x.history = x.held(self.brk)
        del x.log[x.durable :]
        x.commit = min(x.commit, x.durable)
        x.crash()

    def repeat(self):
        if self.appointments:
            self.lead(*self.r.choice(self.appointments[-3:]))

    def forget(self):
        """A disk is put back to what it was before its last promise. Were a lower epoch begun, or led on, with what it promises now, the
        log of the forgotten one would win over it in the end; nothing guards against that. So only a promise is forgotten that is right
        above the one before it, whose leader is gone."""
        led = min((y.leading for y in self.replicas if y.leading), default=1 << 64)
        able = [x for x in self.replicas if x.before in self.leaders and x.before + 1 == x.promised <= led]
        if able:
            x = self.r.choice(able)
            x.promised, x.before = x.before, None
            x.crash()

    def wipe(self):
        old = self.r.choice(self.replicas)
        if self.committed_in and self.committed_in[-1][0] == 0:
            return                       # until it is copied, a restored log is on one disk alone
        starts = [h for y in self.replicas for h in y.history[-3:] if h.leader > 0]
        electorates = [self.initial] + [v for h in starts for v in (h.voters, h.old) if v]
        lost = lambda v: sum(self.by_rid(rid) is None or rid == old.rid for rid in v)
        if any(lost(v) > (len(v) - 1) // 2 for v in electorates):
            return                       # a majority lost for good is not survivable
        new = self.fresh()
        if self.brk == "amnesia":
            new.rid = old.rid
        self.replicas[self.replicas.index(old)] = new

    def run(self, steps):
        for _ in range(steps):
            p = self.r.random()
            if p < self.unrest and len(self.attempts) < 3:
                self.attempts.append(self.attempt())
            elif p < 0.15 + 0.2 * self.busy and self.attempts:
                a = self.r.choice(self.attempts)
                if next(a, "end") == "end" or self.r.random() < 0.02:
                    self.attempts.remove(a)
            elif p < 0.4 and self.forgetful and self.r.random() < 0.3:
                self.forget()
                self.cut_off = self.cut_off if self.r.random() < 0.9 else None
            elif p < 0.4:
                self.append()
            elif p < 0.7:
                self.replicate()
            elif p < 0.95:
                self.sync()
            elif self.voters_only:
                self.restart()
            elif p < 0.965:
                self.repeat()
            elif p < 0.985:
                self.restart()
            else:
                self.wipe()
        return len(self.committed), len(self.leaders)


def main(walks=2000, steps=600, brk=None, first=0):
    commits = epochs = 0
    for seed in range(int(first), int(first) + int(walks)):
        try:
            c, e = Walk(seed, brk).run(int(steps))
        except AssertionError as error:
            print(f"seed {seed}: {error}")
            return 1
        commits, epochs = commits + c, epochs + e
    print(f"{walks} walks green: {commits} commits, {epochs} epochs")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
