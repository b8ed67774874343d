#include "jointmap.h"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <utility>

#include "skeleton_tables.h"

namespace rti {
namespace {

enum class Side { kNone, kLeft, kRight };

using Plain = std::pair<Side, std::string>;

// Locale has no say in bone names, so <cctype> is no use here.
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

template <class Range, class T>
bool holds(const Range& values, const T& value) {
    return std::find(values.begin(), values.end(), value) != values.end();
}

std::string bare(const std::string& name) {
    const std::size_t at = name.find_last_of(":|");
    return at == std::string::npos ? name : name.substr(at + 1);
}

std::vector<std::string> parts_of(const std::string& name) {
    std::vector<std::string> parts;
    std::string part;
    const auto close = [&] {
        if (!part.empty() && !holds(tables::noise_words, part)) parts.push_back(part);
        part.clear();
    };
    char before = 0;
    for (const char c : name) {
        if (is_upper(c) && (is_lower(before) || is_digit(before))) close();
        if (is_upper(c)) {
            part += static_cast<char>(c - 'A' + 'a');
        } else if (is_lower(c) || is_digit(c)) {
            part += c;
        } else {
            close();
        }
        before = c;
    }
    close();
    return parts;
}

// The side, and the name without side, namespace and punctuation.
Plain plain_of(const std::string& name) {
    std::vector<std::string> parts = parts_of(bare(name));
    Side side = Side::kNone;
    const std::pair<const char*, Side> marks[] = {
        {"left", Side::kLeft}, {"right", Side::kRight}, {"l", Side::kLeft}, {"r", Side::kRight}};
    for (const auto& mark : marks) {
        const auto at = std::find(parts.begin(), parts.end(), mark.first);
        if (side == Side::kNone && at != parts.end() && parts.size() > 1) {
            parts.erase(at);
            side = mark.second;
        }
    }
    std::string word;
    for (const std::string& part : parts) word += part;
    for (int k = 0; k < 2 && side == Side::kNone; ++k) {
        const std::string mark = marks[k].first;
        if (word.size() > mark.size() && word.compare(0, mark.size(), mark) == 0) {
            word.erase(0, mark.size());
            side = marks[k].second;
        }
    }
    if (side == Side::kNone && word.size() > 1 && (word[0] == 'l' || word[0] == 'r') &&
        holds(tables::short_sided_words, word.substr(1))) {
        side = word[0] == 'l' ? Side::kLeft : Side::kRight;
        word.erase(0, 1);
    }
    return {side, word};
}

bool is_spine(const Plain& plain) {
    if (plain.first != Side::kNone) return false;
    for (const std::string word : tables::spine_words) {
        if (plain.second.compare(0, word.size(), word) == 0 &&
            std::all_of(plain.second.begin() + static_cast<std::ptrdiff_t>(word.size()), plain.second.end(), is_digit)) {
            return true;
        }
    }
    return false;
}

bool by_family(const std::vector<std::string>& names, Roles& roles) {
    std::vector<std::string> own;
    for (const std::string& name : names) own.push_back(bare(name));
    for (const tables::FamilyRow& family : tables::families) {
        bool all = true;
        roles.fill(-1);
        for (std::size_t role = 0; role < roles.size() && all; ++role) {
            if (!family.joints[role]) continue;
            const auto at = std::find(own.rbegin(), own.rend(), family.joints[role]);
            all = at != own.rend();
            if (all) roles[role] = static_cast<std::int32_t>(own.rend() - at - 1);
        }
        if (all) return true;
    }
    return false;
}

// The first joint of that side named by one of the words, likeliest word first, that no role has taken yet.
std::int32_t find(const std::vector<Plain>& plain, Side side, const tables::Rows<const char*>& words, const Roles& taken) {
    for (const std::string word : words) {
        const auto at = std::find(plain.begin(), plain.end(), Plain{side, word});
        const auto index = static_cast<std::int32_t>(at - plain.begin());
        if (at != plain.end() && !holds(taken, index)) return index;
    }
    return -1;
}

void guess_spine(const std::vector<Plain>& plain, Roles& roles) {
    std::vector<std::int32_t> spine;
    for (std::size_t j = 0; j < plain.size(); ++j) {
        if (is_spine(plain[j])) spine.push_back(static_cast<std::int32_t>(j));
    }
    const auto set = [&](int role, std::size_t k) { roles[static_cast<std::size_t>(role)] = spine[k]; };
    if (spine.size() == 1) {
        set(kSpine3, 0);
    } else if (spine.size() == 2) {
        set(kSpine1, 0);
        set(kSpine3, 1);
    } else if (!spine.empty()) {
        set(kSpine1, 0);
        set(kSpine2, spine.size() == 3 ? 1 : spine.size() / 2);
        set(kSpine3, spine.size() - 1);
    }
}

void by_words(const std::vector<std::string>& names, Roles& roles) {
    std::vector<Plain> plain;
    for (const std::string& name : names) plain.push_back(plain_of(name));
    roles.fill(-1);
    const auto at = [&](std::int32_t role) -> std::int32_t& { return roles[static_cast<std::size_t>(role)]; };
    for (const tables::AliasRow& row : tables::midline_aliases) at(row.left) = find(plain, Side::kNone, row.words, roles);
    for (const Side side : {Side::kLeft, Side::kRight}) {
        for (const tables::AliasRow& row : tables::sided_aliases) {
            at(side == Side::kLeft ? row.left : row.right) = find(plain, side, row.words, roles);
        }
        // "shoulder" names the collar of one family and the upper arm of another; without an arm it is the upper arm.
        std::int32_t& collar = at(side == Side::kLeft ? kLeftCollar : kRightCollar);
        std::int32_t& shoulder = at(side == Side::kLeft ? kLeftShoulder : kRightShoulder);
        if (shoulder < 0) std::swap(shoulder, collar);
    }
    guess_spine(plain, roles);
}

std::string listed(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

}  // namespace

Roles roles_of(const std::vector<std::string>& names) {
    Roles roles{};
    if (!by_family(names, roles)) by_words(names, roles);
    std::vector<std::string> missing;
    for (std::size_t role = 0; role < roles.size(); ++role) {
        if (tables::required[role] && roles[role] < 0) missing.push_back(tables::joint_names[role]);
    }
    if (roles[kSpine1] < 0 && roles[kSpine2] < 0 && roles[kSpine3] < 0) missing.push_back("spine3");
    if (!missing.empty()) {
        throw std::invalid_argument("skeleton: expected names that tell which joints are " + listed(missing) + "; got " +
                                    listed(names) + "; rename those joints after a preset's");
    }
    return roles;
}

}  // namespace rti
