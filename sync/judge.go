package sync

import (
	"context"
	"errors"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// errUnreadable ends a sweep: one record may be damaged, but not all.
var errUnreadable = errors.New("no record of the answer can be read")

func readable(u wechat.UserInfo) bool { return !u.Unreadable }

// judgement is what can be said of a batch's answer without another call.
type judgement struct {
	refused bool            // no record may be used
	odd     map[string]bool // openids whose records must not be used as they are
	witness *wechat.UserInfo
}

// judge looks for what has been seen of batches. Somebody is odd who is listed but "not subscribed"
// (seen of real followers), or without a unionid beside others who have one, or whose record cannot
// be read. An answer is refused if it has other people than asked for, one unionid twice, or more
// than a quarter that is odd.
//
// Behind an unknown openid WeChat has been seen to move all unionids up by one place, which leaves
// the last record without one. If it has none anyway, nobody is moved if the witness is not: the
// last follower with a unionid, whom a single answer must confirm.
func judge(asked []string, infos []wechat.UserInfo) judgement {
	refused := judgement{refused: true}
	if len(infos) != len(asked) {
		return refused
	}
	left, unionids := set(asked), make(map[string]bool, len(asked))
	j := judgement{odd: map[string]bool{}}
	inOrder := true
	var without []string
	for i := range infos {
		info := &infos[i]
		inOrder = inOrder && (info.OpenID == asked[i] || info.Unreadable && info.OpenID == "")
		if info.Unreadable {
			j.odd[asked[i]] = true
			continue
		}
		if !left[info.OpenID] || unionids[info.UnionID] {
			return refused
		}
		delete(left, info.OpenID)
		if info.UnionID != "" {
			unionids[info.UnionID] = true
		}
		switch {
		case !info.Subscribed:
			j.odd[info.OpenID] = true
		case info.UnionID == "":
			without = append(without, info.OpenID)
		default:
			j.witness = info
		}
	}
	if len(unionids) > 0 {
		for _, openid := range without {
			j.odd[openid] = true
		}
	}
	if len(j.odd) > 0 && !inOrder || 4*len(j.odd) > len(asked) {
		return refused
	}
	if len(j.odd) == 0 || infos[len(infos)-1].UnionID != "" {
		j.witness = nil
	}
	return j
}

// confirmed reports whether a single answer agrees with the batch's about the witness.
func (s *sweep) confirmed(ctx context.Context, witness *wechat.UserInfo) (bool, error) {
	if witness == nil {
		return true, nil
	}
	info, err := s.userInfo(ctx, witness.OpenID)
	if isInvalidOpenID(err) || aboutOnePerson(err) {
		return false, nil
	}
	return info.OpenID == witness.OpenID && info.UnionID == witness.UnionID, err
}
