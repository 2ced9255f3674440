package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// Page is a part of the map in the order of the openids.
type Page struct {
	After string    // the openid before its first one; "" begins
	Limit int       // entries at the most
	Since time.Time // see Scan; zero: ever
}

func since(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(1, 0).UTC() // the first moment that a TIMESTAMP holds
	}
	return t
}

// Scan returns up to page.Limit entries of the account appid whose openid is greater than after, in the
// order of the openids' bytes, followers and former followers alike. A page shorter than limit is the
// last one. Entries count as Asked if WeChat has told us about them since the moment page.Since, by the
// database's clock.
func (m *Map) Scan(ctx context.Context, appid string, page Page) ([]Entry, error) {
	// The range on the primary key reads each row once, in the order the sweep merges with. This is
	// the hot loop of an unchanged sweep, hence rows.Scan and not sqlx's reflection.
	const query = `
		SELECT openid, subscribed, COALESCE(info_at >= ?, 0), unionid IS NOT NULL
		  FROM follower
		 WHERE appid = ? AND openid > ?
		 ORDER BY openid
		 LIMIT ?`
	rows, err := m.db.QueryContext(ctx, query, since(page.Since), appid, page.After, page.Limit)
	if err != nil {
		return nil, fmt.Errorf("scanning followers: %w", database.Explain(err))
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	entries := make([]Entry, 0, page.Limit)
	for rows.Next() {
		var e Entry
		if err := rows.Scan(&e.OpenID, &e.Subscribed, &e.Asked, &e.HasUnionID); err != nil {
			return nil, fmt.Errorf("scanning followers: %w", database.Explain(err))
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("scanning followers: %w", database.Explain(err))
	}
	return entries, nil
}

const (
	upsertHead = `
		INSERT INTO follower (appid, openid, unionid, subscribed, subscribe_time, subscribe_scene,
		                      qr_scene, qr_scene_str, remark, groupid, tagid_list, language, info_at)
		VALUES `
	upsertRow = `(?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3))`
	// An answer may lack the unionid for a while (read after follow): it never wipes a known one.
	upsertTail = `
		ON DUPLICATE KEY UPDATE
		    unionid         = COALESCE(VALUES(unionid), unionid),
		    subscribed      = 1,
		    subscribe_time  = VALUES(subscribe_time),
		    subscribe_scene = VALUES(subscribe_scene),
		    qr_scene        = VALUES(qr_scene),
		    qr_scene_str    = VALUES(qr_scene_str),
		    remark          = VALUES(remark),
		    groupid         = VALUES(groupid),
		    tagid_list      = VALUES(tagid_list),
		    language        = VALUES(language),
		    info_at         = VALUES(info_at),
		    changed_at      = CURRENT_TIMESTAMP(3)`
	// maxUpsert rows go into one statement: 1,000 is where the measured curve is flat, and one
	// statement then stays near 200 kB, far below any max_allowed_packet.
	maxUpsert = 1000
)

// Store writes what WeChat said about followers of the account appid; every info must have Subscribed
// set. Each slice of up to 1,000 infos is one atomic statement, so a Store that fails may be repeated.
// known tells how many of them the caller has seen in the table before: they count as changed.
func (m *Map) Store(ctx context.Context, appid string, infos []wechat.UserInfo, known int64) (Stored, error) {
	stored := Stored{Added: int64(len(infos)) - known, Changed: known}
	for len(infos) > 0 {
		n := min(len(infos), maxUpsert)
		if err := m.upsert(ctx, appid, infos[:n]); err != nil {
			return Stored{}, fmt.Errorf("storing %d followers: %w", n, err)
		}
		infos = infos[n:]
	}
	return stored, nil
}

func (m *Map) upsert(ctx context.Context, appid string, infos []wechat.UserInfo) error {
	const columns = 11
	args := make([]any, 0, len(infos)*columns)
	for i := range infos {
		u := &infos[i]
		args = append(args, appid, u.OpenID, database.Null(u.UnionID), moment(u.SubscribeTime), database.Null(u.SubscribeScene),
			u.QRScene, database.Null(clip(u.QRSceneStr, 128)), database.Null(clip(u.Remark, 128)), clampInt32(u.GroupID),
			tags(u.TagIDs), database.Null(clip(u.Language, 16)))
	}
	query := upsertHead + repeat(upsertRow, ",", len(infos)) + upsertTail
	return database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, args...)
		return err
	})
}

// Conflicts returns those of the infos' openids whose unionid the map contradicts: the openid has another
// one there, or another subscribed openid has this one. holders are those other openids.
func (m *Map) Conflicts(ctx context.Context, appid string, infos []wechat.UserInfo) (openids, holders []string, err error) {
	byUnionID := make(map[string]string, len(infos))
	byOpenID := make(map[string]string, len(infos))
	var unionids, ids []string
	for _, u := range infos {
		if u.UnionID == "" {
			continue
		}
		byUnionID[u.UnionID], byOpenID[u.OpenID] = u.OpenID, u.UnionID
		unionids, ids = append(unionids, u.UnionID), append(ids, u.OpenID)
	}
	if len(ids) == 0 {
		return nil, nil, nil
	}
	const base = `
		SELECT openid, unionid FROM follower WHERE appid = ? AND openid IN (?) AND unionid IS NOT NULL
		UNION ALL
		SELECT openid, unionid FROM follower WHERE appid = ? AND unionid IN (?) AND subscribed = 1`
	query, args, err := sqlx.In(base, appid, ids, appid, unionids)
	if err != nil {
		return nil, nil, err
	}
	var rows []struct {
		OpenID  string `db:"openid"`
		UnionID string `db:"unionid"`
	}
	if err := m.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, nil, fmt.Errorf("reading known unionids: %w", database.Explain(err))
	}
	for _, r := range rows {
		if u, ok := byOpenID[r.OpenID]; ok && u != r.UnionID {
			openids = append(openids, r.OpenID)
		}
		if o, ok := byUnionID[r.UnionID]; ok && o != r.OpenID {
			openids, holders = append(openids, o), append(holders, r.OpenID)
		}
	}
	return openids, holders, nil
}

// DuplicateUnionIDs returns up to limit subscribed openids of an account that share their unionid with another one.
func (m *Map) DuplicateUnionIDs(ctx context.Context, appid string, limit int) ([]string, error) {
	// In one statement MariaDB looks every row up twice. By itself the first one reads follower_unionid in its
	// order and keeps nothing; without the hint it reads the rows instead: 5 s a million, not 0.2 s.
	const shared = `
		SELECT unionid
		  FROM follower FORCE INDEX (follower_unionid)
		 WHERE appid = ? AND unionid IS NOT NULL
		 GROUP BY unionid
		HAVING COUNT(*) > 1
		 LIMIT ?`
	const holders = `SELECT openid FROM follower WHERE appid = ? AND unionid IN (?) AND subscribed = 1 LIMIT ?`
	var unionids []string
	if err := m.db.SelectContext(ctx, &unionids, shared, appid, limit); err != nil {
		return nil, fmt.Errorf("looking for unionids that occur twice: %w", database.Explain(err))
	}
	if len(unionids) == 0 {
		return nil, nil
	}
	query, args, err := sqlx.In(holders, appid, unionids, limit)
	if err != nil {
		return nil, err
	}
	var openids []string
	if err := m.db.SelectContext(ctx, &openids, query, args...); err != nil {
		return nil, fmt.Errorf("reading who shares a unionid: %w", database.Explain(err))
	}
	return openids, nil
}

// Sample returns up to n followers with their unionids.
func (m *Map) Sample(ctx context.Context, appid string, n int) (map[string]string, error) {
	const query = `
		SELECT openid, unionid
		  FROM follower
		 WHERE appid = ? AND subscribed = 1 AND unionid IS NOT NULL
		 ORDER BY openid
		 LIMIT ?`
	var rows []struct {
		OpenID  string `db:"openid"`
		UnionID string `db:"unionid"`
	}
	if err := m.db.SelectContext(ctx, &rows, query, appid, n); err != nil {
		return nil, fmt.Errorf("reading a sample of the map: %w", database.Explain(err))
	}
	sample := make(map[string]string, len(rows))
	for _, r := range rows {
		sample[r.OpenID] = r.UnionID
	}
	return sample, nil
}

// MarkGone sets subscribed = 0 for those of the openids that the map still calls subscribed, and
// returns how many they were. The caller has made sure, by more than one answer, that they left.
func (m *Map) MarkGone(ctx context.Context, appid string, openids []string) (int64, error) {
	if len(openids) == 0 {
		return 0, nil
	}
	const query = `
		UPDATE follower
		   SET subscribed = 0, info_at = CURRENT_TIMESTAMP(3), changed_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid IN (?) AND subscribed = 1`
	n, err := m.exec(ctx, query, appid, openids)
	if err != nil {
		return 0, fmt.Errorf("marking %d followers as gone: %w", len(openids), err)
	}
	return n, nil
}

// RequestRecheck puts people on the list of those about whom WeChat must be asked again, at once. Somebody who is on
// it for the same reason keeps his turn; a new reason begins anew.
func (m *Map) RequestRecheck(ctx context.Context, appid string, openids []string, doubt RecheckReason) error {
	if len(openids) == 0 {
		return nil
	}
	args := make([]any, 0, len(openids)*3)
	for _, id := range openids {
		args = append(args, appid, id, doubt)
	}
	// reason comes last: the assignments before it compare with the old one.
	query := `INSERT INTO follower_recheck (appid, openid, reason) VALUES ` +
		repeat(`(?, ?, ?)`, ",", len(openids)) + `
		ON DUPLICATE KEY UPDATE
		    due_at   = CASE WHEN reason = VALUES(reason) THEN due_at ELSE CURRENT_TIMESTAMP(3) END,
		    attempts = CASE WHEN reason = VALUES(reason) THEN attempts ELSE 0 END,
		    reason   = VALUES(reason)`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting %d doubts: %w", len(openids), err)
	}
	return nil
}

// DueRechecks returns up to limit people about whom WeChat must be asked now.
func (m *Map) DueRechecks(ctx context.Context, appid string, limit int) ([]Recheck, error) {
	const query = `
		SELECT openid, reason, attempts
		  FROM follower_recheck
		 WHERE appid = ? AND due_at <= CURRENT_TIMESTAMP(3)
		 ORDER BY due_at
		 LIMIT ?`
	var due []Recheck
	if err := m.db.SelectContext(ctx, &due, query, appid, limit); err != nil {
		return nil, fmt.Errorf("reading due rechecks: %w", database.Explain(err))
	}
	return due, nil
}

// SettleRecheck takes one person off the list.
func (m *Map) SettleRecheck(ctx context.Context, appid, openid string) error {
	const query = `DELETE FROM follower_recheck WHERE appid = ? AND openid IN (?)`
	if _, err := m.exec(ctx, query, appid, []string{openid}); err != nil {
		return fmt.Errorf("settling a recheck: %w", err)
	}
	return nil
}

// PostponeRecheck keeps a person on the list after an answer that settled nothing, with a growing
// pause: 5 minutes, doubled each time up to a week.
func (m *Map) PostponeRecheck(ctx context.Context, appid string, r Recheck) error {
	const query = `
		UPDATE follower_recheck
		   SET attempts = attempts + 1,
		       due_at   = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE appid = ? AND openid = ?`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, int64(recheckBackoff(r.Attempts+1)/time.Second), appid, r.OpenID)
		return err
	})
	if err != nil {
		return fmt.Errorf("postponing a recheck: %w", err)
	}
	return nil
}

// UpsertMiniUser notes a mini-program user and, where it is known, his unionid. An empty unionid never
// wipes a known one.
func (m *Map) UpsertMiniUser(ctx context.Context, appid, openid, unionid string) error {
	const query = `
		INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?)
		ON DUPLICATE KEY UPDATE unionid = COALESCE(VALUES(unionid), unionid), seen_at = CURRENT_TIMESTAMP(3)`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, appid, openid, database.Null(unionid))
		return err
	})
	if err != nil {
		return fmt.Errorf("storing a mini-program user: %w", err)
	}
	return nil
}

// exec runs a statement whose last parameter is an IN list and returns the rows it touched.
func (m *Map) exec(ctx context.Context, query, appid string, openids []string) (int64, error) {
	query, args, err := sqlx.In(query, appid, openids)
	if err != nil {
		return 0, err
	}
	var n int64
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := m.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

func repeat(s, sep string, n int) string {
	return strings.TrimSuffix(strings.Repeat(s+sep, n), sep)
}

// moment turns WeChat's unix seconds into a TIMESTAMP, whose range ends in January 2038 on the older
// servers; a value outside it is an odd answer and not worth failing a batch for.
func moment(unix int64) any {
	if unix <= 0 || unix >= math.MaxInt32 {
		return nil
	}
	return time.Unix(unix, 0).UTC()
}

func clampInt32(n int64) int64 { return min(max(n, math.MinInt32), math.MaxInt32) }

// clip keeps an odd, overlong answer from failing the whole batch in strict mode. The columns hold
// four times what WeChat documents.
func clip(s string, runes int) string {
	if len(s) <= runes {
		return s
	}
	r := []rune(s)
	return string(r[:min(len(r), runes)])
}

func tags(ids []int64) any {
	if len(ids) == 0 {
		return nil
	}
	text, _ := json.Marshal(ids) // a []int64 always encodes
	return string(text)
}
