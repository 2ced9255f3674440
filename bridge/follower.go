package bridge

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
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

// Scan returns up to page.Limit entries of an account whose openid is greater than page.After, in
// the order of the openids' bytes, former followers included. A page shorter than the limit is the
// last one. Entries count as Asked if WeChat has answered about them since page.Since, by the
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
	for err == nil && rows.Next() {
		var e Entry
		err = rows.Scan(&e.OpenID, &e.Subscribed, &e.Asked, &e.HasUnionID)
		entries = append(entries, e)
	}
	if err = cmp.Or(err, rows.Err()); err != nil {
		return nil, fmt.Errorf("scanning followers: %w", database.Explain(err))
	}
	return entries, nil
}

const (
	upsertHead = `
		INSERT INTO follower
		    (appid, openid, unionid, subscribed, subscribe_time, subscribe_scene, qr_scene,
		     qr_scene_str, remark, groupid, tagid_list, language, info_at)
		VALUES `
	upsertRow = `(?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3))`
	// An answer may lack the unionid for a while (read after follow): it never wipes a known one.
	// It may also be older than what an event or another answer has stored meanwhile: a row that
	// changed after the question stays as it is. info_at comes last, because the others compare
	// with the old one.
	upsertTail = `
		ON DUPLICATE KEY UPDATE
		    unionid         = IF(info_at > ?, unionid, COALESCE(VALUES(unionid), unionid)),
		    subscribed      = IF(info_at > ?, subscribed, 1),
		    subscribe_time  = IF(info_at > ?, subscribe_time, VALUES(subscribe_time)),
		    subscribe_scene = IF(info_at > ?, subscribe_scene, VALUES(subscribe_scene)),
		    qr_scene        = IF(info_at > ?, qr_scene, VALUES(qr_scene)),
		    qr_scene_str    = IF(info_at > ?, qr_scene_str, VALUES(qr_scene_str)),
		    remark          = IF(info_at > ?, remark, VALUES(remark)),
		    groupid         = IF(info_at > ?, groupid, VALUES(groupid)),
		    tagid_list      = IF(info_at > ?, tagid_list, VALUES(tagid_list)),
		    language        = IF(info_at > ?, language, VALUES(language)),
		    changed_at      = IF(info_at > ?, changed_at, CURRENT_TIMESTAMP(3)),
		    info_at         = IF(info_at > ?, info_at, VALUES(info_at))`
	upsertFences = 12
	// maxUpsert rows go into one statement: 1,000 is where the measured curve is flat, and one
	// statement then stays near 200 kB, far below any max_allowed_packet.
	maxUpsert = 1000
)

// Now returns the time of the database's clock, by which the map dates its facts.
func (m *Map) Now(ctx context.Context) (now time.Time, err error) {
	if err := m.db.GetContext(ctx, &now, `SELECT CURRENT_TIMESTAMP(3)`); err != nil {
		return now, fmt.Errorf("reading the database's clock: %w", database.Explain(err))
	}
	return now, nil
}

// Store writes answers about followers of an account. Every info must have Subscribed set; asked is
// when WeChat was asked, by the database's clock. A row that changed since then stays as it is.
// Each slice of up to 1,000 infos is one atomic statement, so a Store that fails may be repeated.
func (m *Map) Store(
	ctx context.Context, appid string, infos []wechat.UserInfo, asked time.Time,
) error {
	for slice := range slices.Chunk(infos, maxUpsert) {
		slice, err := m.unerased(ctx, appid, slice)
		if err != nil {
			return err
		}
		if len(slice) == 0 {
			continue
		}
		err = database.Retry(ctx, func(ctx context.Context) error {
			return statement{appid, asked}.upsert(ctx, m.db, slice)
		})
		if err != nil {
			return fmt.Errorf("storing %d followers: %w", len(slice), err)
		}
		m.tell(ctx, appid, changesOf(slice))
	}
	return nil
}

func changesOf(infos []wechat.UserInfo) []change {
	changes := make([]change, len(infos))
	for i, u := range infos {
		changes[i] = change{OpenID: u.OpenID, UnionID: u.UnionID}
	}
	return changes
}

// statement writes followers of an account. A row that changed after the time known stays as it is.
type statement struct {
	appid string
	known time.Time
}

func (st statement) upsert(
	ctx context.Context, db sqlx.ExecerContext, infos []wechat.UserInfo,
) error {
	const columns = 11
	args := make([]any, 0, len(infos)*columns+upsertFences)
	for i := range infos {
		u := &infos[i]
		args = append(args, st.appid, u.OpenID, database.Null(u.UnionID), moment(u.SubscribeTime),
			database.Null(u.SubscribeScene), u.QRScene, database.Null(clip(u.QRSceneStr, 128)),
			database.Null(clip(u.Remark, 128)), clampInt32(u.GroupID), tags(u.TagIDs),
			database.Null(clip(u.Language, 16)))
	}
	for range upsertFences {
		args = append(args, st.known)
	}
	query := upsertHead + repeat(upsertRow, len(infos)) + upsertTail
	_, err := db.ExecContext(ctx, query, args...)
	return err
}

// pair is a follower with their unionid.
type pair struct {
	OpenID  string `db:"openid"`
	UnionID string `db:"unionid"`
}

// Conflicts returns those of the infos' openids that conflict with the map: the openid has another
// unionid there, or another subscribed openid has this one. holders are those other openids.
func (m *Map) Conflicts(
	ctx context.Context, appid string, infos []wechat.UserInfo,
) (openids, holders []string, err error) {
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
	const query = `
		SELECT openid, unionid
		  FROM follower
		 WHERE appid = ? AND openid IN (?) AND unionid IS NOT NULL
		UNION ALL
		SELECT openid, unionid
		  FROM follower
		 WHERE appid = ? AND unionid IN (?) AND subscribed = 1`
	var rows []pair
	if err := m.selectIn(ctx, &rows, query, appid, ids, appid, unionids); err != nil {
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

// DuplicateUnionIDs returns up to limit subscribed openids of an account that share a unionid.
func (m *Map) DuplicateUnionIDs(ctx context.Context, appid string, limit int) ([]string, error) {
	// As one statement, MariaDB looks every row up twice. The first one reads follower_unionid in
	// its order and keeps nothing. Without the hint it reads the rows instead: 5 s a million, not
	// 0.2 s.
	const shared = `
		SELECT unionid
		  FROM follower FORCE INDEX (follower_unionid)
		 WHERE appid = ? AND unionid IS NOT NULL
		 GROUP BY unionid
		HAVING COUNT(*) > 1
		 LIMIT ?`
	const holders = `
		SELECT openid
		  FROM follower
		 WHERE appid = ? AND unionid IN (?) AND subscribed = 1
		 LIMIT ?`
	var unionids []string
	if err := m.db.SelectContext(ctx, &unionids, shared, appid, limit); err != nil {
		return nil, fmt.Errorf("looking for unionids that occur twice: %w", database.Explain(err))
	}
	if len(unionids) == 0 {
		return nil, nil
	}
	var openids []string
	if err := m.selectIn(ctx, &openids, holders, appid, unionids, limit); err != nil {
		return nil, fmt.Errorf("reading who shares a unionid: %w", database.Explain(err))
	}
	return openids, nil
}

// Sample returns up to n followers with their unionids: those of the first in order of their
// openids about whom WeChat answered longest ago, the oldest answer first. The youngest answers are
// no sample of the others: a follow or a refresh gives somebody a new unionid after a rebinding.
func (m *Map) Sample(ctx context.Context, appid string, n int) ([]wechat.UserInfo, error) {
	const among = 1000
	const query = `
		SELECT openid, unionid
		  FROM (SELECT openid, unionid, info_at
		          FROM follower
		         WHERE appid = ? AND subscribed = 1 AND unionid IS NOT NULL
		         ORDER BY openid
		         LIMIT ?) AS first_ones
		 ORDER BY info_at, openid
		 LIMIT ?`
	var rows []pair
	if err := m.db.SelectContext(ctx, &rows, query, appid, among, n); err != nil {
		return nil, fmt.Errorf("reading a sample of the map: %w", database.Explain(err))
	}
	sample := make([]wechat.UserInfo, len(rows))
	for i, r := range rows {
		sample[i] = wechat.UserInfo{OpenID: r.OpenID, UnionID: r.UnionID, Subscribed: true}
	}
	return sample, nil
}

// MarkGone sets subscribed = 0 for those of the openids that the map calls subscribed, and returns
// their number. The caller has made sure that they left, by more than one answer since the time
// asked of the database's clock. Whoever changed since then, or has just followed, stays.
func (m *Map) MarkGone(
	ctx context.Context, appid string, openids []string, asked time.Time,
) (n int64, err error) {
	if len(openids) == 0 {
		return 0, nil
	}
	err = database.Retry(ctx, func(ctx context.Context) error {
		n, err = statement{appid, asked}.markGone(ctx, m.db, openids)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("marking %d followers as gone: %w", len(openids), err)
	}
	if n > 0 {
		m.tellGone(ctx, appid, openids...)
	}
	return n, nil
}

func (st statement) markGone(
	ctx context.Context, db sqlx.ExecerContext, openids []string,
) (int64, error) {
	const base = `
		UPDATE follower
		   SET subscribed = 0, info_at = CURRENT_TIMESTAMP(3), changed_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid IN (?) AND subscribed = 1 AND (info_at IS NULL OR info_at <= ?)
		   AND NOT EXISTS (SELECT 1 FROM follower_recheck r
		                    WHERE r.appid = follower.appid AND r.openid = follower.openid
		                      AND r.reason = 'followed')`
	query, args, err := sqlx.In(base, st.appid, openids, st.known)
	if err != nil {
		return 0, err
	}
	res, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// selectIn is sqlx's Select for a query with IN lists.
func (m *Map) selectIn(ctx context.Context, dest any, query string, args ...any) error {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return err
	}
	return m.db.SelectContext(ctx, dest, query, args...)
}

// repeat writes s n times, separated by commas.
func repeat(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }

// moment turns WeChat's unix seconds into a TIMESTAMP, whose range ends in January 2038 on the
// older servers. A value outside it is not worth failing a batch for.
func moment(unix int64) any {
	if unix <= 0 || unix >= math.MaxInt32 {
		return nil
	}
	return time.Unix(unix, 0).UTC()
}

func clampInt32(n int64) int64 { return min(max(n, math.MinInt32), math.MaxInt32) }

// clip keeps an overlong value from failing the whole batch in strict mode. The columns hold four
// times what WeChat documents.
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
